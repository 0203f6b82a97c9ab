"""The model that a client means, by the entry of a BlocksMap or by a folder.

Reads headers and text, no weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from gptnode.errors import UsageError
from gptnode.node.config import ClientConfig
from gptnode.node.loading import (
    ModelSource,
    folder_paths,
    open_device,
    open_entry,
    open_model,
    with_activations,
)
from gptnode.routing.blocks_map import BlocksMap, read_blocks_map
from gptnode.routing.entries import NO_ENDS, ModelEntry, PlacedEnds
from gptnode.text.template import ChatTemplate, load_template
from gptnode.text.tokenizer import Tokenizer

__all__ = ["OpenedModel", "find_model"]


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """The model that a client was asked for; its headers are read, its weights are not."""

    source: ModelSource
    blocks_map: BlocksMap | None
    entry: ModelEntry | None

    @property
    def ends(self) -> PlacedEnds:
        """The ends that the map leaves to peers."""
        return self.blocks_map.ends(self.source.key.name) if self.blocks_map else NO_ENDS

    def text(self, template_name: str | None) -> tuple[Tokenizer, ChatTemplate]:
        """Its tokenizer and its chat template, or the one called ``template_name``.

        Raises:
            GptNodeError: their files are wrong, or there is no such template.
        """
        tokenizer_path = self.source.paths.tokenizer
        tokenizer = Tokenizer.from_file(tokenizer_path)
        mapped = self.entry.template if self.entry is not None else None
        return tokenizer, load_template(tokenizer_path.parent, tokenizer, template_name or mapped)


def find_model(config: ClientConfig) -> OpenedModel:
    """The model that ``config`` means, by its map or its folder.

    Raises:
        GptNodeError: map or model folder are wrong, or neither is named.
    """
    blocks_map = read_blocks_map(config.map_path) if config.map_path is not None else None
    entry = blocks_map.model(config.model_name) if blocks_map is not None else None
    if blocks_map is not None and entry is not None:
        source = open_entry(
            entry, blocks_map, config.model_dir, dtype=config.dtype, device=config.device
        )
        blocks_map.check_blocks(source.key.name, source.config.n_blocks)
    elif config.model_dir is not None:
        paths = folder_paths(config.model_dir)
        name = config.model_name or paths.folder.resolve().name
        source = open_model(name, paths, config.dtype, open_device(config.device))
    else:
        raise UsageError("name a model folder with --model-dir, or a BlocksMap with --map")
    return OpenedModel(with_activations(source, config.activations), blocks_map, entry)
