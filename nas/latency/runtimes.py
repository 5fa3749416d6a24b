"""Runtimes: what runs a network whose latency is measured.

Each turns a network and conditions into a call that does one forward pass and has ended, or is
queued on the device's stream, when it returns.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import get_args

import torch
from torch import Tensor, nn

from nas.latency.conditions import DtypeName, LatencyConditions, RuntimeName
from nas.utilities.devices import check_device, threads
from nas.utilities.errors import InputError

Forward = nn.Module | Callable[[Tensor], object]
ForwardPass = Callable[[], object]


def prepare(network: Forward, conditions: LatencyConditions) -> ForwardPass:
    """A call that does one forward pass of a network on images that are the same every time.

    Torch's number of threads must already be that of the conditions: compiled code keeps it.

    Raises:
        InputError: If the runtime is not installed or cannot run the network.
    """
    if conditions.dtype not in get_args(DtypeName):
        legal = ", ".join(get_args(DtypeName))
        raise InputError(f"dtype {conditions.dtype!r} is not here; legal: {legal}")
    match conditions.runtime:
        case "eager":
            return _eager(network, conditions)
        case "compile":
            return _compiled(network, conditions)
        case "onnx":
            return _onnx(network, conditions)
        case unknown:
            legal = ", ".join(get_args(RuntimeName))
            raise InputError(f"runtime {unknown!r} is not here; legal: {legal}")


def check_runtime(conditions: LatencyConditions) -> None:
    """Check that this machine can time networks under such conditions, before anything is trained.

    Raises:
        InputError: If device or runtime are not here, or the runtime doesn't know the data type.
    """
    check_device(conditions.device)
    with threads(conditions.threads):
        prepare(nn.Conv2d(3, 8, kernel_size=4, stride=4), conditions)()


def _eager(network: Forward, conditions: LatencyConditions) -> ForwardPass:
    _place(network, conditions, conditions.device)
    images = _random_images(conditions).to(conditions.device)
    return torch.inference_mode()(lambda: network(images))


def _compiled(network: Forward, conditions: LatencyConditions) -> ForwardPass:
    _place(network, conditions, conditions.device)
    images = _random_images(conditions).to(conditions.device)
    # After a few networks the compiler would give up on their common code and run it as it is.
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, dynamic=False)
    run: ForwardPass = torch.inference_mode()(lambda: compiled(images))
    try:
        run()
    except Exception as error:  # of many kinds, from the compiler's stages and the system's
        raise InputError(f"runtime 'compile' failed: {shorten(str(error), 300)}") from error
    return run


def _onnx(network: Forward, conditions: LatencyConditions) -> ForwardPass:
    from nas.export.onnx import INPUT, OUTPUT, check_onnx_installed, export_onnx

    check_onnx_installed("runtime 'onnx'", "onnxruntime")
    import onnxruntime

    if not isinstance(network, nn.Module):
        raise InputError("runtime 'onnx' runs modules alone, no other functions")
    if conditions.dtype == "bfloat16":
        raise InputError("runtime 'onnx' with dtype 'bfloat16'; legal: 'float32', 'float16'")
    device = torch.device(conditions.device)
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise InputError(
            f"runtime 'onnx' on {conditions.device!r} needs onnxruntime-gpu instead of onnxruntime"
        )
    _place(network, conditions, "cpu")
    images = _random_images(conditions)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = conditions.threads
    options.log_severity_level = 3  # it warns of every constant that it doesn't fold
    # By default its threads wait at full load for the next pass, and slow what is timed in turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    index = device.index or 0
    settings = {"device_id": index} if device.type == "cuda" else {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        # What an export would be tidied by, the session does itself, in a fraction of the time.
        export_onnx(network, images, path, any_batch=False, tidy=False)
        session = onnxruntime.InferenceSession(path, options, providers=[(provider, settings)])
    if provider not in session.get_providers():  # it falls back to the CPU of its own accord
        raise InputError(f"runtime 'onnx' could not start on {conditions.device!r}")
    value = onnxruntime.OrtValue.ortvalue_from_numpy(images.numpy(), device.type, index)
    binding = session.io_binding()
    binding.bind_ortvalue_input(INPUT, value)
    binding.bind_output(OUTPUT, device.type, index)

    def run() -> object:
        session.run_with_iobinding(binding)
        return value  # the binding reads its memory and doesn't keep it

    return run


def _place(network: Forward, conditions: LatencyConditions, device: str) -> None:
    if isinstance(network, nn.Module):
        network.to(device, getattr(torch, conditions.dtype)).eval()


def _random_images(conditions: LatencyConditions) -> Tensor:
    """Images (B, 3, S, S) that depend on nothing but their shape."""
    size = conditions.image_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(conditions.batch_size, 3, size, size, generator=generator)
    return images.to(getattr(torch, conditions.dtype))
