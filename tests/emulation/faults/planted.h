// SPDX-License-Identifier: Apache-2.0
// For test copies of kernels, which have every fault of test_planted_faults.py compiled in.
#pragma once

// Whether RTDETR_OPS_PLANTED_FAULT names this fault, its row in the table.
bool planted(int fault);
