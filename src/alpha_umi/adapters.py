"""Low-rank adapters of the three roles on one backbone, chosen token by token.

A `RoleLinear` adds ``B_r (A_r x) · alpha / rank`` to a linear layer for the tokens of role *r* and nothing for tokens
of no role, so one forward may hold bare tokens and tokens of several roles. Two variants differ in which tokens are a
role's own: all of the sequence (``lora``), or those from the role's header to the end of its span (``alora``,
activated LoRA: Greenewald et al. 2025). What comes before the header is then the bare backbone's, and the roles can
share it.

Files are PEFT's own (``adapter_config.json``, ``adapter_model.safetensors``): the adapters load in PEFT, and
``lora`` ones in any server with LoRA.

Shapes: N tokens of a forward, flattened; I and O the widths of a layer, R the rank.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import nn

from alpha_umi.errors import RunDirectoryError, UserError
from alpha_umi.run_directory import AdapterIdentity, AdapterShape, Variant, replaced
from alpha_umi.trajectory import write_json
from alpha_umi.transcript import Role

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Route = Mapping[Role, torch.Tensor] | torch.Tensor | Role | None
"""Which tokens are whose: flat indices (int64 [n]) a role, a `RoleAdapters.mask`, one role for all, or nobody's."""

_IDENTITY = "alpha_umi.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


class _Routes:
    """Whose the tokens of the running forward are; shared by all layers of a model."""

    now: Route = None


class RoleLinear(nn.Module):
    """A frozen linear layer with an adapter a role.

    Attributes:
        base: The layer itself, [I] to [O].
        down: A of each role, [R, I].
        up: B of each role, [O, R].
    """

    def __init__(self, base: nn.Linear, roles: Sequence[Role], shape: AdapterShape, routes: _Routes) -> None:
        super().__init__()
        self.base, self._roles = base, tuple(roles)
        self.scale = shape.alpha / shape.rank
        self.routes = routes
        weight = base.weight
        self.down = nn.ParameterDict({r: nn.Parameter(weight.new_empty(shape.rank, base.in_features)) for r in roles})
        self.up = nn.ParameterDict({r: nn.Parameter(weight.new_zeros(base.out_features, shape.rank)) for r in roles})
        self.fused: tuple[torch.Tensor, torch.Tensor] | None = None
        for matrix in self.down.values():
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))  # as in PEFT

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., I] to [..., O]."""
        out = self.base(x)
        route = self.routes.now
        if route is None:
            return out
        if isinstance(route, str):
            return out + self._added(route, x).to(out.dtype)
        if isinstance(route, torch.Tensor):
            assert self.fused is not None
            down, up = self.fused
            return out + nn.functional.linear(nn.functional.linear(x, down) * route, up)
        flat, given = out.flatten(0, -2), x.flatten(0, -2)
        for role, tokens in route.items():
            flat = flat.index_add(0, tokens, self._added(role, given[tokens]).to(flat.dtype))
        return flat.view_as(out)

    def fuse(self) -> None:
        """Puts the roles' matrices side by side, for one product in place of one a role."""
        with torch.no_grad():
            down = torch.cat([self.down[role] for role in self._roles])
            self.fused = down, torch.cat([self.up[role] for role in self._roles], 1) * self.scale

    def _added(self, role: Role, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(nn.functional.linear(x, self.down[role]), self.up[role] * self.scale)


class RoleAdapters:
    """The adapters of a model, and whose turn it is.

    Args:
        model: Its linear layers are replaced by `RoleLinear` ones in place; its own weights no longer take gradients.
        roles: Which roles get an adapter.
        shape: Of every adapter.

    Raises:
        UserError: The model has no such layers, or adapters already.
    """

    def __init__(self, model: PreTrainedModel, roles: Sequence[Role], shape: AdapterShape) -> None:
        self.model, self.roles, self.shape = model, tuple(roles), shape
        self._routes = _Routes()
        names = _targets(model, shape)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        self._layers: dict[str, RoleLinear] = {}
        for name in names:
            parent, _, leaf = name.rpartition(".")
            owner = model.get_submodule(parent)
            layer = RoleLinear(getattr(owner, leaf), self.roles, shape, self._routes)
            setattr(owner, leaf, layer)
            self._layers[name] = layer

    @property
    def targets(self) -> list[str]:
        """The layers' names, as they end."""
        return sorted({name.rpartition(".")[2] for name in self._layers})

    def fuse(self) -> None:
        """Prepares for inference with masks; the matrices must not change (nor move, nor be cast) afterwards."""
        for layer in self._layers.values():
            layer.fuse()

    @property
    def fused_bytes(self) -> int:
        """Memory of what `fuse` has put together, beside the matrices themselves."""
        return sum(matrix.nbytes for layer in self._layers.values() for matrix in layer.fused or ())

    def mask(self, owner: torch.Tensor) -> torch.Tensor:
        """Which ranks count for which token, once `fuse` was called.

        Args:
            owner: int64 [B, S], index into ``roles``; -1 for nobody's.

        Returns:
            [B, S, ranks of all roles together], in the model's dtype.
        """
        own = owner[..., None] == torch.arange(len(self.roles), device=owner.device)
        return own.repeat_interleave(self.shape.rank, -1).to(self.model.dtype)

    @contextmanager
    def routed(self, route: Route) -> Iterator[None]:
        """While this lasts, the model's forwards take these tokens for these roles'."""
        before, self._routes.now = self._routes.now, route
        try:
            yield
        finally:
            self._routes.now = before

    def named(self, role: Role) -> dict[str, nn.Parameter]:
        """A role's matrices under PEFT's names, layer by layer, A before B."""
        return {
            f"{_PREFIX}{name}.lora_{letter}.weight": matrix[role]
            for name, layer in self._layers.items()
            for letter, matrix in (("A", layer.down), ("B", layer.up))
        }

    def take(self, role: Role, tensors: Mapping[str, torch.Tensor]) -> None:
        """Sets a role's matrices.

        Raises:
            RunDirectoryError: They are not for these layers or of another rank.
        """
        mine = self.named(role)
        if {n: t.shape for n, t in mine.items()} != {n: t.shape for n, t in tensors.items()}:
            raise RunDirectoryError(f"the {role}'s adapter was made for other layers, or another rank, than this model")
        with torch.no_grad():
            for name, tensor in tensors.items():
                mine[name].copy_(tensor)


def _targets(model: PreTrainedModel, shape: AdapterShape) -> list[str]:
    """The full names of the layers that get an adapter."""
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if any(isinstance(module, RoleLinear) for module in model.modules()):
        raise UserError("the model has adapters already")
    if shape.targets == "all-linear":
        head = model.get_output_embeddings()
        found = [name for name in linear if model.get_submodule(name) is not head]
    else:
        found = [name for name in linear if name.rpartition(".")[2] in shape.targets]
        unknown = [target for target in shape.targets if not any(n.rpartition(".")[2] == target for n in found)]
        if unknown:
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise UserError(f"adapter.targets: the model has no layer {unknown[0]!r}; it has {', '.join(known)}")
    if not found:
        raise UserError("the model has no linear layers that adapters could be put on")
    return sorted(found)


# ---- files


def backbone_fingerprint(directory: Path) -> str:
    """Names the weights of a saved model: SHA-256 over its safetensors files, 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*.safetensors")):
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def save_adapter(
    directory: Path, adapters: RoleAdapters, identity: AdapterIdentity, header: Sequence[int], base: str
) -> None:
    """Writes a role's adapter as PEFT does; complete or not there at all.

    Args:
        directory: Where; it is replaced.
        adapters: Hold it.
        identity: Which role's it is, and what it belongs to.
        header: Token ids of the role's header: what activates it, under ``alora``.
        base: Where the backbone is, as PEFT is to load it.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    config = LoraConfig(
        task_type="CAUSAL_LM", base_model_name_or_path=base, inference_mode=True, r=adapters.shape.rank,
        lora_alpha=adapters.shape.alpha,  # pyright: ignore[reportArgumentType]
        target_modules=adapters.targets,
        alora_invocation_tokens=list(header) if identity.variant == "alora" else None,
    )  # fmt: skip
    tensors = {name: p.detach().contiguous() for name, p in adapters.named(identity.role).items()}
    with replaced(directory) as partial:
        config.save_pretrained(str(partial))
        save_file(tensors, partial / _WEIGHTS, metadata={"format": "pt"})
        write_json(partial / _IDENTITY, identity.model_dump())


def read_adapter(directory: Path, identity: AdapterIdentity) -> tuple[AdapterShape, dict[str, torch.Tensor]]:
    """Reads a saved adapter.

    Args:
        directory: Where it is.
        identity: What it has to belong to.

    Raises:
        RunDirectoryError: It is missing or damaged, or belongs to another backbone, renderer, role or variant.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        saved = AdapterIdentity.model_validate(json.loads((directory / _IDENTITY).read_text(encoding="utf-8")))
        config: dict[str, Any] = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
        shape = AdapterShape(rank=config["r"], alpha=config["lora_alpha"], targets=sorted(config["target_modules"]))
        tensors = load_file(directory / _WEIGHTS)
    except (OSError, ValueError, KeyError, ValidationError, SafetensorError) as error:
        raise RunDirectoryError(f"{directory} holds no adapter that can be read: {error}") from error
    for key, wanted in identity.model_dump().items():
        found = getattr(saved, key)
        if found != wanted:
            raise RunDirectoryError(f"{directory}: the adapter is for another {key} ({found}, here {wanted})")
    return shape, tensors


def load_adapters(
    model: PreTrainedModel, folders: Mapping[Role, Path], variant: Variant, backbone: Path, renderer: str
) -> RoleAdapters:
    """Puts saved adapters on their backbone.

    Args:
        model: The backbone; changed in place.
        folders: Where each role's adapter is.
        variant: They all have to be of this one.
        backbone: Where the backbone was loaded from.
        renderer: Fingerprint of the renderer in use.

    Raises:
        RunDirectoryError: One of them is missing, or belongs to something else.
    """
    base = backbone_fingerprint(backbone)
    found: dict[Role, tuple[AdapterShape, dict[str, torch.Tensor]]] = {
        role: read_adapter(folder, AdapterIdentity(role=role, variant=variant, backbone=base, renderer=renderer))
        for role, folder in folders.items()
    }
    shapes = [shape for shape, _ in found.values()]
    if any(shape != shapes[0] for shape in shapes):
        raise RunDirectoryError("the roles' adapters have different shapes; train them with one 'adapter' section")
    adapters = RoleAdapters(model, tuple(folders), shapes[0])
    for role, (_, tensors) in found.items():
        adapters.take(role, tensors)
    return adapters
