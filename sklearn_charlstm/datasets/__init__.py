"""Texts in many languages."""

# SPDX-License-Identifier: BSD-3-Clause
