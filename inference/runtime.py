"""Run ONNX models: one session a model and process, one thread, no spinning, rows in batches of bounded size.

Trees are taken out of the graph and asked here (`inference.forest`), where they are of the kind that is known there.

One thread because workers are processes and share the cores; no spinning because a waiting thread would burn the core
that the next worker needs. A session may be shared by threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from inference.contract import KEY, Contract, ContractError, from_json
from inference.forest import Forest, speaks

BATCH: Final = 64
"""Rows in one call of the engine: enough to hide its overhead, small enough to stay in the cache."""

SMALLEST: Final = 2
"""Fewer rows are padded: a single row takes another matrix routine, which rounds differently."""


class Model:
    """An ONNX model with its contract.

    Parameters
    ----------
    path : Path
        The ``.onnx`` file.
    inner : sequence of str
        Inner float tensors that are given as further outputs, behind those of the file.

    Attributes
    ----------
    contract : Contract
        Read from the file; compare it with `inference.contract.check`.
    inputs, outputs : tuple of str
        Names, in the order of the graph.

    Raises
    ------
    ContractError
        The file is missing, is no ONNX model, or holds no valid contract.
    """

    __slots__ = ("_fed", "_forests", "_session", "contract", "inputs", "outputs")

    contract: Contract
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __init__(self, path: Path, inner: Sequence[str] = ()) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        if not path.is_file():
            raise ContractError(f"no model at {path}; install the package again or train one")
        try:
            model: Any = onnx.load(str(path))
            for name in inner:
                model.graph.output.append(_tensor(name))
            self.inputs, self.outputs = _names(model.graph.input), _names(model.graph.output)
            self._forests = _without_forests(model.graph)
            self._session: Any = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the engine's errors share no public base class
            raise ContractError(f"{path} is no ONNX model this engine can run: {str(error).splitlines()[0]}") from error
        self._fed = _names(self._session.get_inputs())
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise ContractError(f"{path} holds no contract; export it with the trainer of this version")
        self.contract = from_json(text)

    def run(self, *columns: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run all rows, in batches of `BATCH`.

        Parameters
        ----------
        *columns : ndarray of float32, shape (m, ...)
            One array for each input of the graph, in its order.

        Returns
        -------
        list of ndarray of float32, shape (m, ...)
            One array for each output. A row's bits don't depend on the other rows or on `m`.

        Raises
        ------
        ValueError
            Another number of arrays than the graph has inputs, or of different lengths.
        """
        if len(columns) != len(self.inputs) or len({len(column) for column in columns}) > 1:
            shapes = [column.shape for column in columns]
            raise ValueError(f"the model takes {self.inputs} with equal numbers of rows, got shapes {shapes}")
        rows = len(columns[0])
        parts = [self._batch([c[at : at + BATCH] for c in columns]) for at in range(0, max(rows, 1), BATCH)]
        return [np.concatenate(pieces)[:rows] for pieces in zip(*parts, strict=True)]

    def _batch(self, columns: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        rows = len(columns[0])
        if rows < SMALLEST:
            columns = [np.concatenate([c, np.zeros((SMALLEST - rows, *c.shape[1:]), c.dtype)]) for c in columns]
        known = {name: np.ascontiguousarray(c) for name, c in zip(self.inputs, columns, strict=True)}
        for forest in self._forests:
            known[forest.gives] = forest.run(known[forest.reads])
        asked = [name for name in self.outputs if name not in known]
        given = self._session.run(asked, {name: known[name] for name in self._fed})
        known |= zip(asked, given, strict=True)
        return [np.asarray(known[name])[:rows] for name in self.outputs]


def _without_forests(graph: Any) -> tuple[Forest, ...]:
    """Take the trees that read what is put in out of a graph: what they give is put in, too."""
    inputs, outputs = _names(graph.input), _names(graph.output)
    nodes = [node for node in graph.node if speaks(node) and node.input[0] in inputs]
    if len(nodes) == len(graph.node):
        return ()
    for node in nodes:
        graph.node.remove(node)
        if node.output[0] in outputs:
            graph.output.remove(next(item for item in graph.output if item.name == node.output[0]))
    read = {name for node in graph.node for name in node.input}
    for item in [item for item in graph.input if item.name not in read]:
        graph.input.remove(item)
    graph.input.extend(_tensor(node.output[0]) for node in nodes if node.output[0] in read)
    return tuple(map(Forest, nodes))


def _tensor(name: str) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)


def _names(items: Any) -> tuple[str, ...]:
    return tuple(item.name for item in items)
