import shutil
from typing import Any

import onnxruntime
import pytest
import torch
from shortened import ALL_IN_TURN, random_network
from torch import Tensor, nn

import nas.export.onnx
from nas.latency.conditions import LatencyConditions
from nas.latency.measure import measure_latency
from nas.latency.runtimes import check_runtime, prepare
from nas.utilities.errors import InputError
from search_space import Architecture


def conditions(runtime: str, **changes: object) -> LatencyConditions:
    values: dict[str, object] = {"device": "cpu", "image_size": 32, "threads": 1}
    return LatencyConditions.model_validate(values | {"runtime": runtime} | changes)


class Scores(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size=8, stride=8)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean(dim=(2, 3)).softmax(dim=-1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_eager_runs_the_network_on_images_of_the_conditions(dtype: str) -> None:
    scores = prepare(Scores().train(), conditions("eager", dtype=dtype, batch_size=2))()
    assert isinstance(scores, Tensor)
    assert (scores.shape, scores.dtype) == ((2, 4), getattr(torch, dtype))
    assert not scores.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_onnx_runtime_times_a_network_with_the_threads_it_is_told(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    stops: list[str] = []
    session = onnxruntime.InferenceSession

    def noting(path: object, options: onnxruntime.SessionOptions, **rest: Any) -> Any:
        threads.append(options.intra_op_num_threads)
        stops.append(options.get_session_config_entry("session.force_spinning_stop"))
        return session(path, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noting)
    told = conditions("onnx", dtype=dtype, batch_size=2, threads=2)
    latency = measure_latency(Scores(), told)
    assert threads == [2]
    assert stops == ["1"]  # its threads leave the processor to what is timed next
    assert latency.median_ms > 0
    assert latency.conditions == told


def test_onnx_runtime_that_is_missing_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nas.export.onnx, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^runtime 'onnx' is not installed; pip install 'subnet-"):
        check_runtime(conditions("onnx"))


def test_what_onnx_runtime_cannot_run_is_refused() -> None:
    with pytest.raises(InputError, match=r"'bfloat16'; legal: 'float32', 'float16'"):
        check_runtime(conditions("onnx", dtype="bfloat16"))
    with pytest.raises(InputError, match="modules alone"):
        prepare(torch.relu, conditions("onnx"))
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(InputError, match="'cuda' needs onnxruntime-gpu"):
            prepare(Scores(), conditions("onnx", device="cuda"))


def test_a_network_is_compiled_whole_for_one_size_and_compiled_anew_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, object]] = []
    resets: list[None] = []

    def compiled(network: nn.Module, **how: object) -> nn.Module:
        asked.append(how)
        return network

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(None))
    for _ in range(2):
        assert isinstance(prepare(Scores(), conditions("compile"))(), Tensor)
    assert asked == [{"fullgraph": True, "dynamic": False}] * 2
    assert len(resets) == 2


def test_a_network_that_cannot_be_compiled_is_refused_with_the_reason_in_one_line() -> None:
    class Breaking(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return images

    with pytest.raises(InputError, match=r"^runtime 'compile' failed: .*graph_break") as raised:
        prepare(Breaking(), conditions("compile"))
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@ALL_IN_TURN
def test_the_compiler_can_follow_every_kind_of_block(architecture: Architecture) -> None:
    network = random_network(architecture)
    torch.compiler.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=False)
    images = torch.randn(1, 3, 97, 97, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(compiled(images), network(images), atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="torch compiles for a CPU by C++")
def test_a_compiled_network_gives_the_outputs_of_the_network() -> None:
    network = Scores()
    eager, compiled = (prepare(network, conditions(r))() for r in ("eager", "compile"))
    torch.testing.assert_close(compiled, eager)
