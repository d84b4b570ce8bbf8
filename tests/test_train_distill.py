"""A student learns what its teacher finds alike, whatever the length of its embedding."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from s4g.core.errors import InputError
from s4g.train.checkpoint import load_checkpoint, save_checkpoint
from s4g.train.distill import DistillConfig, Teacher
from s4g.train.model import MEAN, STD, normalise

CPU = torch.device("cpu")


def unit(rows: int, dim: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    return nn.functional.normalize(vectors, dim=1)


def test_a_teacher_of_another_length_is_refused_where_embeddings_are_matched(
    toy_checkpoint: Path,
) -> None:
    config = DistillConfig(str(toy_checkpoint), "embedding")
    with pytest.raises(InputError) as error:
        Teacher(config, 256, CPU)
    assert str(error.value) == (
        f"{toy_checkpoint}: the teacher embeds in 32 dimensions, this recipe in 256; set "
        "[distill] kind = 'similarity', or embedding_dim = 32"
    )


def test_similarities_can_be_learnt_from_a_teacher_of_another_length(toy_checkpoint: Path) -> None:
    teacher = Teacher(DistillConfig(str(toy_checkpoint)), 256, CPU)
    theirs = unit(6, 32, 1), unit(6, 32, 2)
    queries, references = unit(6, 256, 3).requires_grad_(), unit(6, 256, 4).requires_grad_()
    loss = teacher.loss((queries, references), theirs)
    loss.backward()
    assert loss.item() > 0
    assert queries.grad is not None and references.grad is not None
    assert queries.grad.abs().max() > 0 and references.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["similarity", "embedding"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(
    toy_checkpoint: Path, kind: str
) -> None:
    teacher = Teacher(DistillConfig(str(toy_checkpoint), kind), 32, CPU)
    theirs = unit(6, 32, 1), unit(6, 32, 2)
    assert teacher.loss(theirs, theirs).item() == pytest.approx(0, abs=1e-6)
    assert teacher.loss((theirs[1], theirs[0].roll(1, 0)), theirs).item() > 0.1


def test_the_weight_scales_the_loss(toy_checkpoint: Path) -> None:
    theirs, ours = (unit(6, 32, 1), unit(6, 32, 2)), (unit(6, 32, 3), unit(6, 32, 4))
    single, double = (
        Teacher(DistillConfig(str(toy_checkpoint), weight=w), 32, CPU).loss(ours, theirs).item()
        for w in (1.0, 2.0)
    )
    assert double == pytest.approx(2 * single)


def test_a_teacher_sees_the_pictures_as_it_was_trained_to(
    tmp_path: Path, toy_checkpoint: Path
) -> None:
    """Its own size, mean and deviation, whatever the student's are; in chunks or at once."""
    encoder, spec = load_checkpoint(toy_checkpoint)
    other = dataclasses.replace(spec, mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4))
    path = tmp_path / "teacher.safetensors"
    save_checkpoint(path, encoder, other)
    images = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8)
    expected = encoder(normalise(images, other.mean, other.std))
    teacher = Teacher(DistillConfig(str(path)), 32, CPU)
    seen = normalise(images, MEAN, STD)
    for chunk in (0, 2):
        queries, references = teacher.embed(seen, seen, MEAN, STD, chunk)
        assert torch.allclose(queries, expected, atol=1e-4)
        assert torch.equal(queries, references)
    large = nn.functional.interpolate(seen, (128, 128))
    assert teacher.embed(large, seen, MEAN, STD)[0].shape == (5, 32)


def test_a_teacher_is_never_trained(toy_checkpoint: Path) -> None:
    teacher = Teacher(DistillConfig(str(toy_checkpoint)), 32, CPU)
    images = torch.zeros(2, 3, 64, 64)
    assert not any(e.requires_grad for e in teacher.embed(images, images, MEAN, STD))
