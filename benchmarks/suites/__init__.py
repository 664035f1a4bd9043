# SPDX-License-Identifier: Apache-2.0
"""What ``run.py`` measures: the operator, whole detectors, single calls, the import."""
