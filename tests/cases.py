"""For each model a small instance, a batch and a loss: all generic tests use them.

A key is MODULE.NAME, and may say more after a space. Each public nn.Module of a
module of code/ must be part of one of the module's models here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import alexnet
import attention
import bert
import convnext
import googlenet
import grad_cam
import inception
import layers
import lenet
import resnet
import transformer
import vgg
import vit


def images(channels, size, classes=10, samples=4):
    """Random pictures and classes: ((images,), labels)."""
    pictures = torch.randn(samples, channels, size, size)
    return (pictures,), torch.randint(classes, (samples,))


@dataclass(frozen=True)
class Case:
    """build() -> model; batch() -> (inputs, target); loss(output, target) -> scalar.

    The model is called as model(*inputs). Random numbers are the test's to seed.
    """
    build: Callable[[], nn.Module]
    batch: Callable[[], tuple]
    loss: Callable = F.cross_entropy


def cifar(**options):
    return Case(partial(resnet.CifarResNet, depth=14, width=8, **options),
                partial(images, channels=3, size=16))


def imagenet(block):
    return Case(partial(resnet.ResNet, block, (1, 2, 1, 1), num_classes=10),
                partial(images, channels=3, size=64))


def inceptions(network):
    table = {name: [n // 8 for n in widths]
             for name, widths in googlenet.TABLE1.items()}
    return Case(partial(network, num_classes=10, table=table),
                partial(images, channels=3, size=64), googlenet.googlenet_loss)


def self_attention():
    """Random sentences, and for each place a class."""
    x = torch.randn(4, 6, 32)
    return (x, x, x), torch.randint(32, (4, 6))


def per_place(output, target):
    """Cross-entropy of logits (B, T, K), alone or first of what a model returns."""
    logits = output[0] if isinstance(output, tuple) else output
    return F.cross_entropy(logits.flatten(0, -2), target.flatten())


def around():
    """Words, and those before and after each."""
    words, neighbours = attention.neighbours(4, 6, None)
    return (words,), neighbours


def drawn(output, target):
    """The loss of hard attention: its value is the loss of the places drawn."""
    logits, weights = output
    losses = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
    return attention.reinforce(losses, weights, baseline=losses.detach().mean()).mean()


def sorter(mechanism):
    """Four sequences to sort; hard attention has a loss of its own."""
    def batch():
        source, target, _ = attention.letters("sort", 4, 6, None)
        return (source, attention.shift(target)), target

    return Case(lambda: attention.Translator(attention.MECHANISMS[mechanism](32), 32),
                batch, drawn if mechanism == "hard" else per_place)


def pairs(vocabulary=12, length=6):
    """Random tokens of sources and targets: ((source, target), what comes next)."""
    source, target = (torch.randint(3, vocabulary, (4, length + i)) for i in range(2))
    return (source, target[:, :-1]), target[:, 1:]


def translator(**options):
    return Case(
        partial(transformer.Translator, 12, length=6, d_model=16, num_heads=2,
                num_layers=2, d_ff=32, **options), pairs,
        partial(transformer.translation_loss, smoothing=0))


def vision_transformer(change=lambda model: model, **options):
    def build():
        model = vit.VisionTransformer(
            patch_size=4, depth=2, hidden_dim=16, num_heads=2, mlp_dim=32,
            num_classes=10, image_size=16, **options)
        nn.init.normal_(model.heads.head.weight)  # at zero it holds gradients back
        return change(model)
    return Case(build, partial(images, channels=3, size=16))


BERT = bert.BertConfig(
    vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=8, initializer_range=0.1)


def words(target, samples=4, length=8):
    """Random words, all there, two texts a row: ((ids, mask, texts), target(ids))."""
    ids = torch.randint(1, BERT.vocab_size, (samples, length))
    texts = (torch.arange(length) > 4).long().expand_as(ids)
    return (ids, torch.ones_like(ids), texts), target(ids)


def pretraining_loss(output, target):
    scores, follows = output
    return bert.pretraining_loss(scores.flatten(0, 1), target.flatten(), follows,
                                 target[:, 0] % 2)


CASES = {
    "attention.MultiHeadAttention": Case(
        partial(attention.MultiHeadAttention, 32, 4), self_attention, per_place),
    **{f"attention.Translator {mechanism}": sorter(mechanism)
       for mechanism in attention.MECHANISMS},
    "attention.Neighbours": Case(
        partial(attention.Neighbours, 4, length=6, embed_dim=32), around, per_place),
    "bert.BertForPreTraining": Case(
        partial(bert.BertForPreTraining, BERT), partial(words, lambda ids: ids),
        pretraining_loss),
    "bert.BertForSequenceClassification": Case(
        partial(bert.BertForSequenceClassification, BERT),
        partial(words, lambda ids: ids[:, 0] % 2)),
    "convnext.ConvNeXt": Case(
        partial(convnext.ConvNeXt, (1, 2), (8, 16), drop_probability=0.1,
                num_classes=10), partial(images, channels=3, size=32)),
    "convnext.RoadNet": Case(
        partial(convnext.road_network, "kernel", width=8),
        partial(images, channels=3, size=32)),
    "alexnet.AlexNet": Case(
        partial(alexnet.AlexNet, num_classes=10, hidden_size=64),
        partial(images, channels=3, size=64)),
    "alexnet.AlexNetOriginal": Case(
        partial(alexnet.AlexNetOriginal, num_classes=10, hidden_size=64,
                channels=(8, 16, 16, 16, 16)),
        partial(images, channels=3, size=227)),
    "alexnet.SmallAlexNet": Case(alexnet.SmallAlexNet,
                                 partial(images, channels=3, size=32)),
    "alexnet.SmallAlexNet tanh": Case(
        partial(alexnet.SmallAlexNet, activation=nn.Tanh, dropout=0.5),
        partial(images, channels=3, size=32)),
    "googlenet.GoogLeNet": inceptions(googlenet.GoogLeNet),
    "googlenet.GoogLeNetPaper": inceptions(googlenet.GoogLeNetPaper),
    "googlenet.SmallGoogLeNet": Case(
        partial(googlenet.SmallGoogLeNet, 1, width=1 / 8, stride=2),
        partial(images, channels=1, size=32)),
    "googlenet.SmallGoogLeNet heads": Case(
        partial(googlenet.SmallGoogLeNet, 1, width=1 / 8, stride=2, aux_logits=True),
        partial(images, channels=1, size=32), googlenet.googlenet_loss),
    "googlenet.SmallGoogLeNet naive": Case(
        partial(googlenet.SmallGoogLeNet, 1, width=1 / 8, stride=2,
                block=googlenet.NaiveInception), partial(images, channels=1, size=32)),
    "grad_cam.SmallNetwork": Case(partial(grad_cam.SmallNetwork, 1, widths=(4, 8, 8)),
                                  partial(images, channels=1, size=8)),
    "inception.Inception3": Case(
        partial(inception.Inception3, num_classes=10, aux_logits=False),
        partial(images, channels=3, size=75)),
    "inception.InceptionAux": Case(partial(inception.InceptionAux, 8, num_classes=10),
                                   partial(images, channels=8, size=17)),
    "inception.SmallInception": Case(partial(inception.SmallInception, 1, width=4),
                                     partial(images, channels=1, size=16)),
    "inception.SmallInception 5x5": Case(
        partial(inception.SmallInception, 1, width=4, large=inception.conv5x5,
                reduction=inception.pool_first),
        partial(images, channels=1, size=16)),
    "layers.convolutions": Case(partial(layers.convolutions, depth=3, width=8),
                                partial(images, channels=1, size=8)),
    "layers.perceptron": Case(partial(layers.perceptron, dropout=0.5),
                              partial(images, channels=1, size=8)),
    "lenet.LeNet5": Case(lenet.LeNet5, partial(images, channels=1, size=28)),
    "lenet.FullyConnected": Case(lenet.FullyConnected,
                                 partial(images, channels=1, size=28)),
    "lenet.LeNet5Original": Case(lenet.LeNet5Original,
                                 partial(images, channels=1, size=28),
                                 lenet.map_loss),
    "resnet.CifarResNet": cifar(),
    "resnet.CifarResNet plain": cifar(plain=True),
    "resnet.ResNet BasicBlock": imagenet(resnet.BasicBlock),
    "resnet.ResNet Bottleneck": imagenet(resnet.Bottleneck),
    "resnet.ResNet BottleneckV1": imagenet(resnet.BottleneckV1),
    "transformer.Translator": translator(),
    "transformer.Translator pre-norm": translator(norm_first=True, kind="learned"),
    "vgg.VGG": Case(
        lambda: vgg.VGG(vgg.make_layers([8, "M", (16, 1), "LRN"]), 10, hidden_size=64),
        partial(images, channels=3, size=16)),
    "vgg.SmallVGG": Case(partial(vgg.small_vgg, in_channels=1, width=8),
                         partial(images, channels=1, size=16)),
    "vit.VisionTransformer": vision_transformer(),
    "vit.VisionTransformer dropout": vision_transformer(dropout=0.1),
    "vit.VisionTransformer bag": vision_transformer(vit.without_positions),
}
