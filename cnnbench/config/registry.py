"""The commands: their modules, help texts and examples."""

from dataclasses import dataclass

# Second words of a command, and the entry in COMMANDS that both words stand for; None: the command's own.
SECOND_WORDS: dict[str, dict[str, str | None]] = {
    "doctor": {"config": None, "data": "doctor_data"},
    "report": {"claims": "report_claims"},
}


@dataclass(frozen=True)
class Command:
    module: str  # exposes run(cfg) -> exit code
    help: str
    examples: tuple[str, ...]
    after_sweep: bool = False  # exposes after_sweep(sweep, run_dirs), called when a sweep is done
    resumes: bool = False  # a sweep skips a run that is done
    compares: bool = False  # exposes compare(cfgs) -> exit code too: a sweep is one table, with or without -m


COMMANDS = {
    "train": Command(
        "cnnbench.commands.train",
        "train a net from scratch",
        (
            "cnnbench train model=resnet20 data=cifar10 data.root=DIR epochs=5",
            "cnnbench train model=alexnet data=imagenet data.root=DIR",
            "cnnbench train -m model=resnet20,plain20 seed=0,1",
        ),
        resumes=True,
    ),
    "finetune": Command(
        "cnnbench.commands.finetune",
        "transfer a trained net to other images, by the strategy that suits them",
        (
            "cnnbench finetune model=resnet34 data=folder data.root=DIR",
            "cnnbench finetune model=resnet34 freeze=backbone data=folder data.root=DIR",
            "cnnbench finetune -m transfer=scratch,svm,full data.fraction=0.1,0.3,1",
        ),
        resumes=True,
        after_sweep=True,
    ),
    "evaluate": Command(
        "cnnbench.commands.evaluate",
        "judge a trained net: errors with their intervals, calibration, confusion, the worst mistakes",
        (
            "cnnbench evaluate weights=outputs/train/resnet8-digits",
            "cnnbench evaluate model=resnet34 weights=imagenet data=imagenet crop=ten",
            "cnnbench evaluate weights=[RUN1,RUN2,RUN3] format=json",
            "cnnbench evaluate weights=RUN calibrate=true",
        ),
    ),
    "predict": Command(
        "cnnbench.commands.predict",
        "say what is on images: the likeliest classes and their probabilities",
        (
            "cnnbench predict a.jpg photos/ weights=outputs/train/resnet18-photos",
            "cnnbench predict photos/ model=resnet34 weights=imagenet sheet=answers.png out=answers.csv",
            "cnnbench predict photos/ weights=[RUN1,RUN2] crop=ten min_probability=0.8",
            "find . -name '*.jpg' | cnnbench predict - weights=RUN format=json",
        ),
    ),
    "export": Command(
        "cnnbench.commands.export",
        "write a trained net for other programs: ONNX, TorchScript, ExportedProgram, safetensors",
        (
            "cnnbench export weights=outputs/train/resnet8-digits format=onnx",
            "cnnbench export model=resnet18 weights=imagenet format=exported_program out=resnet18.pt2",
        ),
    ),
    "summary": Command(
        "cnnbench.commands.summary",
        "show what a net is made of, layer by layer, and what its paper says; or compare nets",
        (
            "cnnbench summary model=alexnet",
            "cnnbench summary model=alexnet,vgg16,googlenet,resnet50",
            "cnnbench summary model=resnet34 model.shortcut=A num_classes=10 format=json out=resnet34.json",
            "cnnbench summary model=vgg19,plain34,resnet34 out=nets.html",
        ),
        compares=True,
    ),
    "visualize": Command(
        "cnnbench.commands.visualize",
        "see what a net has learned: filters, patches, evidence; or a training before it begins",
        (
            "cnnbench visualize weights=outputs/train/resnet8-digits what=filters",
            "cnnbench visualize weights=RUN what=gradcam,occlusion images=photos/ target=cat",
            "cnnbench visualize what=batch,schedule data=cifar10 model=resnet20",
        ),
    ),
    "report": Command(
        "cnnbench.commands.report",
        "compare runs and sweeps, finished or not, with each other and with the papers; or end a sweep",
        (
            "cnnbench report outputs/train out=report.html",
            "cnnbench report SWEEP where=model=resnet* sort=-seconds format=markdown",
            "cnnbench report history=true",
            "cnnbench report SWEEP cancel=true",
        ),
    ),
    "report_claims": Command(
        "cnnbench.commands.report_claims",
        "say which claims of the lecture hold, by the runs given or by those that are kept: a verdict for each",
        (
            "cnnbench report claims",
            "cnnbench report claims claim=shortcuts",
            "cnnbench report claims outputs/reproduce out=claims.html",
        ),
    ),
    "benchmark": Command(
        "cnnbench.commands.benchmark",
        "measure how fast nets train and answer here, what slows them down, and how large a batch fits",
        (
            "cnnbench benchmark model=resnet18",
            "cnnbench benchmark model=resnet20,nin_cifar data=cifar10 data.root=DIR batch_size=128",
            "cnnbench benchmark model=resnet50 precisions=bf16 compile=false batch_size=search format=markdown",
        ),
        compares=True,
    ),
    "prepare": Command(
        "cnnbench.commands.prepare",
        "pack folders of images into tar files, resized and with checksums, that are read several times as fast",
        (
            "cnnbench prepare data=imagenet data.root=DIR out=PACKED",
            "cnnbench train model=resnet18 data=imagenet data.packed=PACKED",
        ),
    ),
    "doctor": Command(
        "cnnbench.commands.doctor",
        "check this machine: versions, devices, data, disk; or review a configuration before it trains",
        (
            "cnnbench doctor",
            "cnnbench doctor format=json",
            "cnnbench doctor config model=resnet20 data=cifar10 batch_size=32 optim.lr=0.4",
            "cnnbench doctor config finetune model=resnet34 data=folder data.root=DIR",
        ),
    ),
    "doctor_data": Command(
        "cnnbench.commands.doctor_data",
        "find what is wrong with images and labels: unreadable files, copies, likely wrong labels",
        (
            "cnnbench doctor data data=folder data.root=DIR",
            "cnnbench doctor data data=folder data.root=DIR weights=RUN similarity=0.95",
        ),
    ),
}


def one_command(argv: list[str]) -> list[str]:
    """The command line with a command of two words as its one name: `doctor data …` as `doctor_data …`."""
    name = SECOND_WORDS.get(argv[0], {}).get(argv[1]) if len(argv) > 1 else None
    return [name, *argv[2:]] if name else argv


def as_words(command: str) -> str:
    """The command as it is typed: `doctor data`."""
    return command.replace("_", " ")
