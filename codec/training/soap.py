"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024).

For learned image codecs it needs a third of Adam's steps (Zhang and Zhu 2026, arXiv 2601.20769): rate and distortion pull
at the same weights, and their conflict is in directions that no single coordinate shows.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

SMALLEST = 16  # sides up to this have no directions worth learning


class SOAP(torch.optim.Optimizer):
    """Matrices get one orthogonal basis a side, refreshed every `refresh` steps; the moments live in that basis.

    Pointwise convolutions count as matrices. Parameters of one shape in one group are handled as a stack, whose state is
    kept with the first of them. A side longer than `largest` keeps the identity as its basis, and so do both sides of
    vectors, tables of a few rows and depthwise kernels: for these it is Adam.

    `reduced` multiplies in bfloat16 where exactness does not matter: into the basis, out of it, and the covariances.
    """

    def __init__(
        self,
        groups: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.98),
        covariance: float = 0.98,
        eps: float = 1e-8,
        refresh: int = 20,
        largest: int = 384,
        reduced: bool = False,
    ):
        defaults = {"lr": lr, "betas": betas, "covariance": covariance, "eps": eps}
        super().__init__(groups, defaults | {"refresh": refresh, "largest": largest, "reduced": reduced})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            stacks: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    stacks.setdefault(tuple(parameter.shape), []).append(parameter)
            for parameters in stacks.values():
                self._step_stack(parameters, group)

    def _step_stack(self, parameters: list[nn.Parameter], group: dict) -> None:
        gradient = torch.stack([parameter.grad.reshape(len(parameter), -1) for parameter in parameters]).float()
        state = self.state[parameters[0]]
        if not state:
            self._start(state, gradient, group)
        low = torch.bfloat16 if group["reduced"] else torch.float32
        reduced = gradient.to(low)
        for side, outer in (("left", lambda g: g @ g.mT), ("right", lambda g: g.mT @ g)):
            if side in state:
                state[side].lerp_(outer(reduced).float(), 1 - group["covariance"])
        bases = {side: state[f"{side}_basis"].to(low) for side in ("left", "right") if side in state}
        rotated = _rotate(reduced, bases).float()
        first, second = group["betas"]
        state["step"] += 1
        count = int(state["step"])
        state["mean"].lerp_(rotated, 1 - first)
        state["square"].lerp_(rotated.square_(), 1 - second)
        scale = (1 - second**count) ** 0.5 / (1 - first**count)
        update = scale * state["mean"] / (state["square"].sqrt() + group["eps"])
        update = _rotate_back(update.to(low), bases).float()
        for parameter, change in zip(parameters, update.unbind(), strict=True):
            parameter.add_(change.reshape(parameter.shape), alpha=-group["lr"])
        if count % group["refresh"] == 0:
            self._refresh(state)

    @staticmethod
    def _start(state: dict, gradient: Tensor, group: dict) -> None:
        state["step"] = torch.tensor(0.0)
        state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        if min(gradient.shape[1:]) <= SMALLEST:
            return
        for side, covariance in (("left", gradient @ gradient.mT), ("right", gradient.mT @ gradient)):
            if covariance.shape[1] <= group["largest"]:
                state[side] = covariance
                state[f"{side}_basis"] = torch.linalg.eigh(covariance)[1].flip(2)

    @staticmethod
    def _refresh(state: dict) -> None:
        """One step of orthogonal iteration; the moments move along."""
        for side, axis in (("left", 1), ("right", 2)):
            if side not in state:
                continue
            covariance, basis = state[side], state[f"{side}_basis"]
            product = covariance @ basis
            order = (basis * product).sum(1).argsort(1, descending=True)
            new = torch.linalg.qr(product.gather(2, order[:, None].expand_as(product)))[0]
            shape = state["square"].shape
            index = (order[:, :, None] if axis == 1 else order[:, None]).expand(shape)
            state["square"] = state["square"].gather(axis, index)
            change = new.mT @ basis
            state["mean"] = change @ state["mean"] if axis == 1 else state["mean"] @ change.mT
            state[f"{side}_basis"] = new


def _rotate(x: Tensor, bases: dict[str, Tensor]) -> Tensor:
    if "left" in bases:
        x = bases["left"].mT @ x
    return x @ bases["right"] if "right" in bases else x


def _rotate_back(x: Tensor, bases: dict[str, Tensor]) -> Tensor:
    if "left" in bases:
        x = bases["left"] @ x
    return x @ bases["right"].mT if "right" in bases else x
