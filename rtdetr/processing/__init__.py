# SPDX-License-Identifier: Apache-2.0
"""From images to what the network takes, and from its outputs to boxes in pixels."""
