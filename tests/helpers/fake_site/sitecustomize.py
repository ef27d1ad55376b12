"""Puts stand-ins for GPUs into every Python process that finds this file first."""

import os

if "FAKE_GPUS" in os.environ:
    import fake_gpu_machine

    fake_gpu_machine.install()
