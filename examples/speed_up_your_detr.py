# SPDX-License-Identifier: Apache-2.0
"""Speed up a detector of transformers: two lines, same weights, same results."""

import torch
from transformers import RTDetrV2Config, RTDetrV2ForObjectDetection

import rtdetr_ops

model = RTDetrV2ForObjectDetection(RTDetrV2Config()).eval()  # or .from_pretrained(...)
print(rtdetr_ops.patch(model))
with torch.inference_mode():
    print(model(torch.rand(1, 3, 640, 640)).pred_boxes.shape)
