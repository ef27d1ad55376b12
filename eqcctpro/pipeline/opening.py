"""The pipeline that suits a runtime."""

from __future__ import annotations

from eqcctpro.models.picker import Picker
from eqcctpro.pipeline.engine import Pipeline
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.runtimes.base import Runtime

__all__ = ["pipeline_on"]


def pipeline_on(picker: Picker, runtime: Runtime, settings: PipelineSettings) -> Pipeline:
    """Make the pipeline of a runtime: on its device, if predictions can stay there.

    Parameters
    ----------
    picker : Picker
    runtime : Runtime
    settings : PipelineSettings
    """
    if not runtime.on_device:
        return Pipeline(picker, runtime, settings)
    from eqcctpro.pipeline.device_engine import DevicePipeline
    from eqcctpro.runtimes.device_runtime import DeviceRuntime

    assert isinstance(runtime, DeviceRuntime)
    return DevicePipeline(picker, runtime, settings)
