# SPDX-License-Identifier: Apache-2.0
"""What was detected, as data and as a drawing."""
