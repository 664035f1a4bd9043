# SPDX-License-Identifier: Apache-2.0
"""What ``gpu_check.py`` runs on a machine with a GPU, step by step."""
