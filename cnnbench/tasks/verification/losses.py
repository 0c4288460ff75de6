"""Losses by which embeddings are learned: people told apart with a margin, or embeddings compared."""

import math

import torch
from torch import Tensor

from cnnbench.config.sections import Head, HeadConfig


def with_margin(scores: Tensor, people: Tensor, head: HeadConfig) -> Tensor:
    """Logits (N, people) for a cross-entropy: those of softmax as they are; of cosines, times the scale, that of the
    right person made smaller.

    cosface: cos - margin (Wang et al., 2018, equation 4). arcface: cos(angle + margin) (Deng et al., 2019, equation 3);
    beyond 180 degrees, where that would rise again, cos - margin * sin(margin), as in the authors' program.
    """
    if head.name is Head.softmax:
        return scores
    right = people[:, None]
    cosine = scores.gather(1, right)
    if head.name is Head.cosface:
        smaller = cosine - head.margin
    else:
        sine = (1 - cosine.square()).clamp(min=1e-12).sqrt()
        turned = cosine * math.cos(head.margin) - sine * math.sin(head.margin)
        beyond = cosine <= math.cos(math.pi - head.margin)
        smaller = torch.where(beyond, cosine - head.margin * math.sin(head.margin), turned)
    return head.scale * scores.scatter(1, right, smaller)


def contrastive_loss(embeddings: Tensor, people: Tensor, margin: float) -> Tensor:
    """Mean over the images of each one's: half the mean squared distance to the others of its person in the batch, and
    half the mean of max(0, margin - distance)^2 over those of other people (Hadsell, Chopra & LeCun, 2006).

    The original takes pairs one by one; here all of a batch count, both kinds alike. embeddings (N, D) of length 1.
    """
    squared = (2 - 2 * embeddings @ embeddings.T).clamp(min=0)
    same = people[:, None] == people[None]
    others, same = ~same, same & ~torch.eye(len(people), dtype=torch.bool, device=people.device)
    distance = (squared + 1e-12).sqrt()
    apart = (margin - distance).clamp(min=0).square()
    near, far = (
        (values * kind).sum(1) / kind.sum(1).clamp(min=1) for values, kind in ((squared, same), (apart, others))
    )
    return (near + far).mean() / 2
