"""model.safetensors.index.json: which file of a folder holds which tensor.

Reads it and the headers of the files that are there. Knows no tensor by name.
"""

from __future__ import annotations

from pathlib import Path

from gptnode.errors import ModelFileError
from gptnode.model.json_fields import JsonFields, read_json_object
from gptnode.model.safetensors_file import TensorEntry, read_safetensors_header

__all__ = ["read_shard_index"]


def read_shard_index(path: Path) -> tuple[list[TensorEntry], dict[str, Path]]:
    """The tensors that an index of shards lists, and the files of those that aren't here.

    Those are under their names without ``model.``. What else the shards hold is left out.

    Raises:
        ModelFileError: the index or a shard that is here is damaged, or a tensor isn't where the
            index says.
    """
    fields = JsonFields(read_json_object(path), str(path))
    weight_map = fields.raw("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelFileError(f"{fields.where('weight_map')} must be an object of tensor -> file")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", ".."):
            raise ModelFileError(
                f"{path}: tensor {name} must be in a file of the same folder, not {shard!r}"
            )
    present = {shard for shard in weight_map.values() if (path.parent / shard).exists()}
    found = {
        (shard, entry.name): entry
        for shard in sorted(present)
        for entry in read_safetensors_header(path.parent / shard)
    }
    here = [(shard, name) for name, shard in weight_map.items() if shard in present]
    for shard, name in here:
        if (shard, name) not in found:
            raise ModelFileError(f"{path.parent / shard}: tensor {name} is missing")
    absent = {
        name.removeprefix("model."): path.parent / shard
        for name, shard in weight_map.items()
        if shard not in present
    }
    return [found[each] for each in here], absent
