"""What a test needs that not every machine has."""

import importlib.util

import pytest
import torch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="the gpu extra is not installed")
