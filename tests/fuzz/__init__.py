# SPDX-License-Identifier: Apache-2.0
"""Random and damaged input, judged: nothing may crash, hang, answer wrongly or fail without a sentence."""
