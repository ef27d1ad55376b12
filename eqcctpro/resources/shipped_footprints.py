"""Measured memory of workers that run exported models."""

from __future__ import annotations

from typing import Any

__all__ = ["SHIPPED"]

SHIPPED: dict[tuple[str, str], dict[str, Any]] = {}
