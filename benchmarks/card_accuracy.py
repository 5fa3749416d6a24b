"""The accuracy that a model card tells, by an ONNX file alone: what the file says, and no torch.

    nas export results/RUN/best
    python -m benchmarks.card_accuracy results/RUN/best --out results/reference/export/card.txt

Images come from the data of the run, uint8 at the size of the file; normalisation and classes are
read from the file.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime

from nas.data import load_data, materialise
from nas.runs.folder import RunFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path, help="folder of a run with model.onnx")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    config = RunFolder(options.network.parent).config
    session = onnxruntime.InferenceSession(options.network / "model.onnx")
    about = {
        name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()
    }
    mean, std = (np.array(about[name], np.float32).reshape(-1, 1, 1) for name in ("mean", "std"))
    data = load_data(config.data, image_size=about["image_size"][0], seed=config.seed)
    assert list(data.class_names) == about["class_names"]
    told = []
    for name, limit in (("search", config.search_images), ("test", None)):
        images, labels = materialise(getattr(data, name), limit=limit, seed=config.seed)
        scores = [
            session.run(None, {"images": (some.numpy() / np.float32(255) - mean) / std})[0]
            for some in images.split(100)
        ]
        right = np.concatenate(scores).argmax(axis=1) == labels.numpy()
        told.append(f"{name} split: {right.mean():.1%} of {len(right)} images")
    card = (options.network / "README.md").read_text(encoding="utf-8")
    told.append("card: " + next(line for line in card.splitlines() if " % on the " in line))
    print("\n".join(told))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(told) + "\n")


if __name__ == "__main__":
    main()
