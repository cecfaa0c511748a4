"""What the rest of the library says to input that it is not made for: one message each, or the right result."""

import math

import numpy as np
import pytest
import torch
from tests.tiny import SETTINGS
from torch import nn

from gscnn_lightning import CityscapesDataModule, FolderDataModule, GSCNNTask, ScenesDataModule
from gscnn_lightning.classes import CITYSCAPES, ClassTable, colors_of
from gscnn_lightning.data.transforms import training_transform
from gscnn_lightning.errors import GSCNNError
from gscnn_lightning.inference import predict_logits
from gscnn_lightning.models import GSCNNOutput
from gscnn_lightning.optim import parameter_groups, poly_decay, warmup
from gscnn_lightning.output import predictions
from gscnn_lightning.release import load_release_checkpoint

OTHER_ERRORS = ("data, folder", "data, scenes, small", "data, scenes, upright", "release")
IMAGE = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))


def network(image):
    """Four classes and a boundary, a pixel at a time."""
    return GSCNNOutput(torch.cat([image, image[:, :1]], 1), image[:, :1], (image[:, :1, ::4, ::4],))


def predicted(change=None, image=IMAGE, **settings):
    """The network, or what `change` makes of the parts of its output."""

    def changed(x):
        output = network(x)
        return output if change is None else change(output, x)

    return predict_logits(changed, image, **settings)


def fewer_classes_to_the_right():
    passes = []

    def forgetful(output, x):
        passes.append(x)
        return output if len(passes) == 1 else output._replace(seg_logits=output.seg_logits[:, :1])

    return forgetful


def half(output, x):
    return output._replace(seg_logits=output.seg_logits[..., ::2, ::2])


def task(num_classes=4, **settings):
    return GSCNNTask(num_classes, **{**SETTINGS, **settings})


def groups(parameters=None, **settings):
    return parameter_groups(nn.Linear(2, 2).named_parameters() if parameters is None else parameters, **settings)


def records(**batch):
    photos = (IMAGE * 255).byte()
    return predictions(network(IMAGE), {"image": photos, "name": ["a", "b"], **batch})


PREDICT = {
    "int16 image": (lambda: predicted(image=(IMAGE * 255).short()), "image has data type torch.int16: give uint8"),
    "complex image": (lambda: predicted(image=IMAGE + 0j), "image has data type torch.complex64: give uint8"),
    "bool image": (lambda: predicted(image=IMAGE > 0.5), "image has data type torch.bool: give uint8"),
    "image of NumPy": (lambda: predicted(image=IMAGE.numpy()), "image is ndarray, no tensor"),
    "one image": (lambda: predicted(image=IMAGE[0]), r"image has shape \(3, 40, 48\): .*\(B, 3, H, W\) RGB"),
    "grey image": (lambda: predicted(image=IMAGE[:, :1]), r"image has shape \(2, 1, 40, 48\)"),
    "no pixel": (lambda: predicted(image=IMAGE[..., :0]), r"image has shape \(2, 3, 40, 0\)"),
    "no network": (lambda: predict_logits(None, IMAGE), "network is a NoneType: give a module or function"),
    "output of another size": (
        lambda: predicted(half),
        r"logits of shape \(2, 4, 20, 24\) for images of 40x48 pixels: .* \(2, K, 40, 48\)",
    ),
    "output of another size, windows": (lambda: predicted(half, window=(32, 32)), r"logits of shape \(2, 4, 16, 16\)"),
    "output of another size, flip": (lambda: predicted(half, flip=True), r"logits of shape \(2, 4, 20, 24\)"),
    "tensor of another size": (
        lambda: predicted(lambda output, x: output.seg_logits[..., ::2, ::2]),
        r"logits of shape \(2, 4, 20, 24\)",
    ),
    "boundaries of another size": (
        lambda: predicted(lambda output, x: output._replace(boundary_logits=output.boundary_logits[..., ::2])),
        r"boundary logits of shape \(2, 1, 40, 24\)",
    ),
    "boundaries of two channels": (
        lambda: predicted(lambda output, x: output._replace(boundary_logits=x[:, :2])),
        r"boundary logits of shape \(2, 2, 40, 48\)",
    ),
    "labels in place of logits": (
        lambda: predicted(lambda output, x: output.labels),
        r"logits of shape \(2, 40, 48\)",
    ),
    "integer logits": (lambda: predicted(lambda output, x: output.seg_logits.long()), "data type torch.int64"),
    "no class": (lambda: predicted(lambda output, x: x[:, :0]), r"logits of shape \(2, 0, 40, 48\)"),
    "fewer images": (lambda: predicted(lambda output, x: output.seg_logits[:1]), r"logits of shape \(1, 4, 40, 48\)"),
    "a mapping": (lambda: predicted(lambda output, x: {"out": output.seg_logits}), "returned a dict: it must return"),
    "a plain tuple": (lambda: predicted(lambda output, x: tuple(output)), "returned a tuple: it must return"),
    "other classes in other windows": (
        lambda: predicted(fewer_classes_to_the_right(), window=(32, 32)),
        "1 classes .* 4 before",
    ),
    "other classes at other scales": (
        lambda: predicted(fewer_classes_to_the_right(), scales=(1, 2)),
        "1 classes .* 4 before",
    ),
    "gates of one image": (
        lambda: predicted(lambda output, x: output._replace(gates=(x[:1, :1],)), flip=True),
        r"gate of shape \(1, 1, 40, 48\)",
    ),
    "window as a number": (lambda: predicted(window=64), "window is 64: give height and width in pixels"),
    "window of one side": (lambda: predicted(window=(64,)), r"window is \(64,\): give height and width"),
    "window in floats": (lambda: predicted(window=(33.5, 40.0)), r"window is \(33.5, 40.0\): give height and width"),
    "small window": (lambda: predicted(window=(16, 64)), r"window is \(16, 64\).*32 at least"),
    "overlap 1": (lambda: predicted(window=(32, 32), overlap=1), "overlap is 1: give a share"),
    "overlap NaN": (lambda: predicted(overlap=math.nan), "overlap is nan: give a share"),
    "overlap None": (lambda: predicted(overlap=None), "overlap is None: give a share"),
    "scale as a number": (lambda: predicted(scales=1.0), "scales is 1.0: give one or more factors"),
    "scale NaN": (lambda: predicted(scales=(math.nan,)), r"scales is \(nan,\): give one or more factors"),
    "scale as text": (lambda: predicted(scales=("1",)), r"scales is \('1',\): give one or more factors"),
    "no scale": (lambda: predicted(scales=()), r"scales is \(\): give one or more factors"),
    "window_batch 0": (lambda: predicted(window_batch=0), "window_batch is 0: give .* 1 or more"),
    "window_batch 1.5": (lambda: predicted(window_batch=1.5), "window_batch is 1.5: give .* 1 or more"),
}

OPTIMIZER = {
    "lr -1": (lambda: groups(lr=-1), "lr is -1: give a number of 0 or more"),
    "lr NaN": (lambda: groups(lr=math.nan), "lr is nan: give a number of 0 or more"),
    "lr as text": (lambda: groups(lr="0.1"), "lr is '0.1': give a number of 0 or more"),
    "backbone_lr_scale -1": (lambda: groups(lr=1, backbone_lr_scale=-1), "backbone_lr_scale is -1: give a number"),
    "parameters without names": (
        lambda: groups(nn.Linear(2, 2).parameters(), lr=1),
        r"a Parameter .*: give names and parameters \(network.named_parameters\(\)\)",
    ),
    "a network": (lambda: groups(nn.Linear(2, 2), lr=1), r"a Linear.*: give names and parameters"),
    "step -1": (lambda: warmup(-1, 3), "step is -1: give a number of 0 or more"),
    "warmup_steps -1": (lambda: warmup(0, -1), "warmup_steps is -1: give a number of 0 or more"),
    "step NaN": (lambda: poly_decay(math.nan, 0, 10, 1), "step is nan: give a number of 0 or more"),
    "step before the end of the warm-up": (lambda: poly_decay(2, 5, 10, 1), "step 2 is .* warm-up of 5 steps: use"),
    "power -1": (lambda: poly_decay(10, 0, 10, -1), "power is -1: give a number of 0 or more"),
    "total_steps NaN": (lambda: poly_decay(1, 0, math.nan, 1), "total_steps is nan: give a number of 0 or more"),
}

OUTPUT = {
    "too few names": (lambda: records(name=["a"]), "1 names for 2 images and 2 predictions: give one"),
    "too few images": (lambda: records(image=(IMAGE[:1] * 255).byte()), "2 names for 1 images and 2 predictions"),
    "float photos": (lambda: records(image=IMAGE), "image has data type torch.float32: .* uint8"),
    "no channels": (lambda: records(image=(IMAGE[:, 0] * 255).byte()), r"image has shape \(2, 40, 48\)"),
    "photos of another size": (
        lambda: records(image=(IMAGE[..., :9] * 255).byte()),
        r"shape \(2, 3, 40, 9\) and the",
    ),
}

CLASSES = {
    "more names than colours": (lambda: ClassTable(("a", "b"), ((0, 0, 0),)), "2 class names but 1 colours: give one"),
    "names in one text": (lambda: ClassTable("ab", ((0, 0, 0), (1, 1, 1))), "names is 'ab': give one name per class"),
    "names in one text, colours of": (lambda: colors_of("road"), "class_names is 'road': give one name per class"),
    "number as name": (lambda: ClassTable((1,), ((0, 0, 0),)), "the name of class 0 is 1: give text"),
    "colour of two": (lambda: ClassTable(("a",), ((0, 0),)), r"colour of class 'a' is \(0, 0\): give \(R, G, B\)"),
    "colour 256": (lambda: ClassTable(("a",), ((0, 0, 256),)), r"colour of class 'a' is \(0, 0, 256\): .* 0 to 255"),
    "colour in shares": (lambda: ClassTable(("a",), ((0.5, 0.5, 1.0),)), r"colour of class 'a' is \(0.5, 0.5, 1.0\)"),
    "colour by name": (lambda: ClassTable(("a",), ("red",)), "colour of class 'a' is 'red': give"),
}

TASK = {
    "K = 0": (lambda: task(0), "num_classes is 0"),
    "too few names": (lambda: task(class_names=["a"]), "1 class names for 4 classes"),
    "names in one text": (lambda: task(class_names="abcd"), "class_names is 'abcd': give one name per class"),
    "name twice": (lambda: task(class_names=["a", "b", "a", "c"]), "class 'a' is there twice: name it once"),
    "colour 300": (lambda: task(class_colors=[(0, 0, 300)] * 4), r"colour of class '0' is \(0, 0, 300\)"),
    "NaN weight": (lambda: task(boundary_weight=math.nan), "weight of the boundary loss is nan"),
    "variant": (lambda: task(loss_variant="papers"), "variant is 'papers': use 'paper' or 'release'"),
    "tau": (lambda: task(tau=math.nan), "tau is nan"),
    "loss_stride 1.5": (lambda: task(loss_stride=1.5), "loss_stride is 1.5: use 1 for every pixel"),
    "ignore_index None": (lambda: task(ignore_index=None), "ignore_index is None: give a whole number"),
    "one tolerance": (lambda: task(boundary_tolerances=3), "boundary_tolerances is 3: give one or more"),
    "NaN tolerance": (
        lambda: task(boundary_tolerances=[math.nan]),
        r"boundary_tolerances is \[nan\]: give one",
    ),
    "poly_power -1": (lambda: task(poly_power=-1), "poly_power is -1: give a number of 0 or more"),
    "poly_power as text": (lambda: task(poly_power="0.9"), "poly_power is '0.9': give a number of 0 or more"),
    "warmup_steps NaN": (lambda: task(warmup_steps=math.nan), "warmup_steps is nan: give a number of 0 or more"),
    "window as a number": (lambda: task(window=64), "window is 64: give height and width"),
    "scale as a number": (lambda: task(scales=2), "scales is 2: give one or more factors"),
    "optimizer by name": (lambda: task(optimizer="sgd"), "optimizer is 'sgd': give a class_path and init_args with"),
    "optimizer without lr": (
        lambda: task(optimizer={"class_path": "torch.optim.SGD", "init_args": {}}),
        r"optimizer is .*: give a class_path and init_args with an lr",
    ),
    "optimizer with a negative lr": (
        lambda: task(optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": -1}}),
        "lr is -1: give a number of 0 or more",
    ),
    "norm": (lambda: task(norm="layer"), "norm 'layer' is not known"),
}

DATA = {
    "batch_size 0": (lambda: ScenesDataModule(batch_size=0), "batch_size must be 1 or more, got 0"),
    "batch_size 2.5": (
        lambda: ScenesDataModule(batch_size=2.5),
        "batch_size must be a whole number of 1 .* got 2.5",
    ),
    "samples_per_epoch as text": (lambda: ScenesDataModule(samples_per_epoch="9"), "samples_per_epoch must be a whole"),
    "num_workers -1": (lambda: ScenesDataModule(num_workers=-1), "num_workers must be 0 or more, got -1"),
    "seed 0.5": (lambda: ScenesDataModule(seed=0.5), "seed must be a whole number of 0 or more, got 0.5"),
    "cache_gb NaN": (lambda: ScenesDataModule(cache_gb=math.nan), "cache_gb must be a number of 0 or more, got nan"),
    "crop_size 64": (lambda: ScenesDataModule(crop_size=64), "crop size must be a height and a width .*, got 64"),
    "crop_size of 0": (lambda: ScenesDataModule(crop_size=(0, 64)), r"crop size must be .*, got \(0, 64\)"),
    "crop_size in floats": (lambda: ScenesDataModule(crop_size=(64.5, 64)), r"crop size must be .*, got \(64.5, 64\)"),
    "scale as a number": (lambda: ScenesDataModule(crop_size=(64, 64), scale=1.0), "scale must be a range .*, got 1.0"),
    "scale the other way round": (lambda: ScenesDataModule(scale=(2.0, 0.5)), r"scale must be .*, got \(2.0, 0.5\)"),
    "scale NaN": (lambda: ScenesDataModule(scale=(1.0, math.nan)), r"scale must be .*, got \(1.0, nan\)"),
    "scale inf": (lambda: ScenesDataModule(scale=(1.0, math.inf)), r"scale must be .*, got \(1.0, inf\)"),
    "class_uniform 3": (
        lambda: ScenesDataModule(class_uniform=3, class_uniform_over="data"),
        "class_uniform is a probability between 0 and 1, got 3",
    ),
    "class_uniform_over": (
        lambda: ScenesDataModule(class_uniform_over="all"),
        "class_uniform_over must .*got 'all'",
    ),
    "flip 2": (lambda: ScenesDataModule(flip=2), "flip is a probability between 0 and 1, got 2"),
    "blur NaN": (lambda: ScenesDataModule(blur=math.nan), "blur is a probability between 0 and 1, got nan"),
    "color_jitter 1": (lambda: ScenesDataModule(color_jitter=1), "color_jitter must be at least 0 and below 1, got 1"),
    "transform, crop_size 64": (lambda: training_transform(64), "crop size must be a height and a width .*, got 64"),
    "boundary_radius 0": (lambda: ScenesDataModule(boundary_radius=0), "boundary_radius must be 1 or more, .*got 0"),
    "boundary_radius NaN": (lambda: ScenesDataModule(boundary_radius=math.nan), "boundary_radius must be 1 or more"),
    "boundary_variant": (lambda: ScenesDataModule(boundary_variant="clean"), "boundary_variant must be .*'clean'"),
    "scenes, no samples": (lambda: ScenesDataModule(0), "must be 1 or more, got 0 and 64"),
    "scenes, 1.5 samples": (lambda: ScenesDataModule(1.5), "must be 1 or more, .*got 1.5 and 64"),
    "scenes, size as a number": (lambda: ScenesDataModule(size=256), "size must be height and width .*, got 256"),
    "scenes, small size": (lambda: ScenesDataModule(size=(32, 32)), "cannot be drawn at 32 x 32 .*at least 64"),
    "scenes, upright size": (lambda: ScenesDataModule(size=(512, 256)), "cannot be drawn at 512 x 256 .*for example"),
    "scenes, scene_seed -1": (lambda: ScenesDataModule(scene_seed=-1), "scene_seed must be 0 or more, got -1"),
    "Cityscapes, train_split": (
        lambda: CityscapesDataModule(train_split="val"),
        "train_split must be 'train', 'trainval' or 'train_extra', got 'val'",
    ),
    "Cityscapes, annotation": (
        lambda: CityscapesDataModule(annotation="rough"),
        "annotation must be 'fine' or 'coarse', got 'rough'",
    ),
    "Cityscapes, cv_split 7": (lambda: CityscapesDataModule(cv_split=7), "cv_split must be 0 .* to 6, got 7"),
    "Cityscapes, cv_split 1.5": (lambda: CityscapesDataModule(cv_split=1.5), "cv_split must be 0 .* to 6, got 1.5"),
    "Cityscapes, coarse of train_extra": (
        lambda: CityscapesDataModule(train_split="train_extra"),
        "train_extra has no fine labels",
    ),
    "Cityscapes, one frame to skip": (
        lambda: CityscapesDataModule(skip_frames="troisdorf_000000_000073"),
        r"skip_frames is 'troisdorf_000000_000073': give a list",
    ),
    "folder, classes that are not there": (
        lambda: FolderDataModule("nowhere", "no.yaml"),
        "cannot read the class table no.yaml",
    ),
    "folder, braces": (lambda: FolderDataModule(".", "camvid", images="{stage}"), r"images is '\{stage\}': braces"),
}

RELEASE = {
    "no file": (lambda: load_release_checkpoint("nowhere.pth"), "weight file nowhere.pth does not exist: check"),
    "a folder": (lambda: load_release_checkpoint("."), "weight file . does not exist|is no file"),
    "K = 0": (lambda: load_release_checkpoint("nowhere.pth", 0), "num_classes is 0"),
    "K = 1": (lambda: load_release_checkpoint("nowhere.pth", 1), "num_classes is 1"),
}

ROOMS = {"predict": PREDICT, "optim": OPTIMIZER, "output": OUTPUT, "classes": CLASSES}
ROOMS |= {"task": TASK, "data": DATA, "release": RELEASE}
BAD = {f"{room}, {name}": row for room, rows in ROOMS.items() for name, row in rows.items()}

RIGHT = {
    "predict, whole scale": lambda: (predicted(scales=(1,)).seg_logits, predicted().seg_logits),
    "predict, list as window": lambda: (predicted(window=[32, 32])[0], predicted(window=(32, 32))[0]),
    "predict, float64": lambda: (predicted(image=IMAGE.double(), flip=True)[0].float(), predicted(flip=True)[0]),
    "predict, small image": lambda: (predicted(image=IMAGE[..., :1])[0], network(IMAGE[..., :1])[0]),
    "optim, no end": lambda: (torch.tensor(poly_decay(10**6, 0, math.inf, 0.9)), torch.tensor(1.0)),
    "optim, after the end": lambda: (torch.tensor(poly_decay(99, 0, 10, 0.9)), torch.tensor(0.0)),
    "classes, numbers of NumPy": lambda: (
        torch.tensor(ClassTable(("a",), (tuple(np.array([1, 2, 3])),)).colors),
        torch.tensor([[1, 2, 3]]),
    ),
    "classes, list of names": lambda: (
        torch.tensor(colors_of(list(CITYSCAPES.names))),
        torch.tensor(CITYSCAPES.colors),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, message = BAD[name]
    with pytest.raises(GSCNNError if name.startswith(OTHER_ERRORS) else ValueError) as told:
        call()
    told.match(message)


@pytest.mark.parametrize("name", RIGHT)
def test_unusual_input_is_handled_right(name):
    torch.testing.assert_close(*RIGHT[name]())
