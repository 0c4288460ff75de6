"""What the tests know about the nets: published counts, and settings small enough for one core."""

import pytest
import torch
from omegaconf import OmegaConf

from cnnbench.models import build

# Parameters and multiply-adds at the native size, for the paper's number of classes and without auxiliary heads.
COUNTS = {
    "lenet5": (60_000, 326_520),
    "lenet5 output=linear": (60_850, 326_520),
    "cuda_convnet": (1_901_386, 32_919_552),
    "cuda_convnet upper=shared": (155_530, 32_919_552),
    "alexnet": (60_965_224, 724_406_816),
    "alexnet groups=1": (62_378_344, 1_135_256_096),
    "alexnet lrn=false overlap_pool=false dropout=0": (60_965_224, 724_406_816),
    "alexnet_owt": (61_100_840, 714_188_480),
    "vgg11": (132_863_336, 7_609_090_048),
    "vgg11_lrn": (132_863_336, 7_609_090_048),
    "vgg11_bn": (132_868_840, 7_609_090_048),
    "vgg13": (133_047_848, 11_308_466_176),
    "vgg13_bn": (133_053_736, 11_308_466_176),
    "vgg16_c": (133_638_952, 11_770_888_192),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg16_bn": (138_365_992, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
    "vgg19_bn": (143_678_248, 19_632_062_464),
    "nin": (7_595_176, 1_100_188_800),
    "nin_cifar": (966_986, 222_486_528),
    "googlenet": (6_998_552, 1_582_671_872),
    "googlenet bn=true": (7_005_832, 1_582_671_872),
    "googlenet separable_stem=true": (6_991_856, 1_498_677_248),
    "googlenet_tv": (6_624_904, 1_498_376_192),
    "bn_inception": (11_194_984, 2_018_851_840),
    "bn_inception separable_stem=true": (11_188_288, 1_934_857_216),
    "bn_inception pool_proj=128": (11_285_224, 2_032_600_064),
    "bn_inception pool_proj=128 conv_bias=true": (11_295_240, 2_032_600_064),
    "inception_v3": (23_834_568, 5_713_216_096),
    "plain18": (11_515_688, 1_794_805_760),
    "resnet18 shortcut=A": (11_515_688, 1_794_805_760),
    "resnet18": (11_689_512, 1_814_073_344),
    "plain34": (21_623_848, 3_644_493_824),
    "resnet34 shortcut=A": (21_623_848, 3_644_493_824),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet34 shortcut=C": (22_716_840, 3_830_747_136),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet50_v1": (25_557_032, 3_857_973_248),
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet101_v1": (44_549_160, 7_570_194_432),
    "resnet152": (60_192_808, 11_513_626_624),
    "resnet152_v1": (60_192_808, 11_282_415_616),
    "resnet20": (269_722, 40_551_040),
    "resnet20 shortcut=B": (272_474, 40_813_184),
    "resnet32": (464_154, 68_862_592),
    "resnet32 shortcut=B": (466_906, 69_124_736),
    "resnet44": (658_586, 97_174_144),
    "resnet44 shortcut=B": (661_338, 97_436_288),
    "resnet56": (853_018, 125_485_696),
    "resnet56 shortcut=B": (855_770, 125_747_840),
    "resnet110": (1_727_962, 252_887_680),
    "resnet110 shortcut=B": (1_730_714, 253_149_824),
    "resnet1202": (19_421_274, 2_829_238_912),
    "resnet1202 shortcut=B": (19_424_026, 2_829_501_056),
    "resnet164": (1_704_154, 244_500_992),
    "resnet1001": (10_328_602, 1_487_849_984),
    "plain20": (269_722, 40_551_040),
    "plain32": (464_154, 68_862_592),
    "plain44": (658_586, 97_174_144),
    "plain56": (853_018, 125_485_696),
    "plain110": (1_727_962, 252_887_680),
    "preact_resnet18": (11_687_720, 1_814_073_344),
    "preact_resnet18 first_unit=own": (11_687_848, 1_814_073_344),
    "preact_resnet34": (21_795_880, 3_663_761_408),
    "preact_resnet34 first_unit=own": (21_796_008, 3_663_761_408),
    "preact_resnet50": (25_549_352, 3_857_973_248),
    "preact_resnet50 first_unit=own": (25_549_480, 3_857_973_248),
    "preact_resnet50 first_unit=own stride_in=3x3": (25_549_480, 4_089_184_256),
    "preact_resnet101": (44_541_480, 7_570_194_432),
    "preact_resnet101 first_unit=own": (44_541_608, 7_570_194_432),
    "preact_resnet101 first_unit=own stride_in=3x3": (44_541_608, 7_801_405_440),
    "preact_resnet152": (60_185_128, 11_282_415_616),
    "preact_resnet152 first_unit=own": (60_185_256, 11_282_415_616),
    "preact_resnet152 first_unit=own stride_in=3x3": (60_185_256, 11_513_626_624),
    "preact_resnet200": (64_666_152, 14_776_270_848),
    "preact_resnet200 first_unit=own": (64_666_280, 14_776_270_848),
    "preact_resnet200 first_unit=own stride_in=3x3": (64_666_280, 15_007_481_856),
    "preact_resnet20": (269_722, 40_551_040),
    "preact_resnet32": (464_154, 68_862_592),
    "preact_resnet44": (658_586, 97_174_144),
    "preact_resnet56": (853_018, 125_485_696),
    "preact_resnet110": (1_727_962, 252_887_680),
    "preact_resnet1202": (19_421_274, 2_829_238_912),
    "preact_resnet164": (1_703_258, 244_500_992),
    "preact_resnet1001": (10_327_706, 1_487_849_984),
    "airbench": (1_971_352, 118_147_360),
    "srcnn": (8_129, 8_032 * 99 * 99),
    "espcn": (22_729, 22_624 * 51 * 51),
    "edsr_baseline": (1_554_499, 1_550_016 * 144 * 144 + 1_728 * 432 * 432),
    "colorizer": (32_235_385, 41_772_122_112),
    "colorizer width=0.25": (2_032_585, 2_679_373_824),
    "colorizer loss=l2": (32_155_458, 41_446_014_976),
    "fcn32s": (134_346_581, 21_208_190_976),
    "fcn32s num_classes=11": (134_305_611, 21_206_183_936),
    "fcn16s": (134_357_354, 21_210_298_368),
    "fcn16s num_classes=11": (134_311_254, 21_207_287_808),
    "fcn8s": (134_362_751, 21_214_513_152),
    "fcn8s num_classes=11": (134_314_081, 21_209_495_552),
    "unet in_channels=1": (31_030_658, 150_428_424_448),
    "ssd300": (26_285_486, 31_373_537_792),
    "ssd300 num_classes=90": (35_641_826, 34_858_153_472),
    "ssd": (2_371_736, 2_003_330_080),
    "deepface": (118_923_774, 517_624_448),
    "deepface c3_groups=2": (118_903_038, 435_323_264),
    "sphereface4": (19_820_940, 197_085_184),
    "sphereface10": (22_477_708, 890_718_208),
    "sphereface20": (29_929_100, 2_046_773_248),
    "sphereface36": (40_037_260, 3_896_461_312),
    "sphereface64": (55_458_956, 7_133_415_424),
    # Not in a paper: 6n + 2 layers as the rest of the family, so 97,216 parameters less for each n.
    "resnet14": (172_506, 26_395_264),
    "resnet8": (75_290, 12_239_488),
    "plain14": (172_506, 26_395_264),
    "plain8": (75_290, 12_239_488),
    # Ours: C's convolutions, each with BatchNorm, and half as wide.
    "vgg16_c_bn": (133_647_400, 11_770_888_192),
}
# Parameters and multiply-adds of the auxiliary heads.
AUXILIARY = {
    "googlenet": (6_379_728, 8_372_224),
    "googlenet bn=true": (6_379_984, 8_372_224),
    "googlenet_tv": (6_379_984, 8_372_224),
    "inception_v3": (3_326_696, 5_683_200),
}
# Ours and torchvision's name of the same function.
TORCHVISION = {
    "alexnet_owt": "alexnet",
    **{name: name for name in ("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn")},
    "googlenet_tv": "googlenet",
    "inception_v3": "inception_v3",
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
}
# One net of each kind, small enough for one core: line, channels and side of its images.
SMALL = {
    "alexnet": ("alexnet", 1, 63),
    "alexnet_owt": ("alexnet_owt", 3, 63),
    "vgg": ("vgg11_lrn", 1, 32),
    "nin": ("nin", 1, 48),
    "nin_cifar": ("nin_cifar", 3, 16),
    "googlenet": ("googlenet", 1, 79),
    "googlenet_tv": ("googlenet_tv", 3, 64),
    "bn_inception": ("bn_inception", 1, 64),
    "inception_v3": ("inception_v3", 3, 107),
    "resnet": ("resnet18", 1, 32),
    "plain": ("plain18", 3, 32),
    "resnet_v1": ("resnet50_v1", 3, 64),
    "cifar_resnet": ("resnet20", 1, 32),
    "cifar_plain": ("plain20", 3, 32),
    "preact": ("preact_resnet18", 3, 32),
    "airbench": ("airbench", 3, 32),
    "cifar_preact": ("preact_resnet20", 1, 16),
    "deepface": ("deepface image_size=72", 3, 72),
    "cuda_convnet": ("cuda_convnet filters=[8,8,4,4] image_size=16", 3, 16),
    "sphereface": ("sphereface10 width=0.25 image_size=32 bn=true", 3, 32),
    "torchvision": ("squeezenet1_1 source=torchvision", 1, 48),
}
# Too deep or too wide to run with the rest. Everything that is asked of a net is asked of these too, in the slow tests.
SLOW_NETS = ("resnet1202", "resnet1001", "preact_resnet1202", "preact_resnet1001")
SLOW_KINDS = ("vgg", "resnet_v1", "inception_v3", "bn_inception", "googlenet_tv", "resnet", "preact", "plain")


def slowly(values, slow):
    """Parameters for pytest: those that begin with one of `slow` are marked."""
    return [pytest.param(v, marks=pytest.mark.slow) if v.split()[0] in slow else v for v in values]


def make(spec: str, **arguments):
    """The net of a line such as "resnet18 shortcut=A"."""
    name, *pairs = spec.split()
    return build(name, **OmegaConf.to_container(OmegaConf.from_dotlist(pairs)), **arguments)


def on_meta(spec: str, **arguments):
    with torch.device("meta"):
        return make(spec, **arguments)


def image(model, batch=1, channels=None, size=None):
    side = size or model.image_size
    channels = channels or getattr(model, "in_channels", 3)
    return torch.randn(batch, channels, side, side, device=next(model.parameters()).device)
