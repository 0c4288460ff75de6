"""`cnnbench export`: a trained net for other programs, with its preprocessing beside it, checked after writing."""

from pathlib import Path

from cnnbench.config.commands import ExportConfig
from cnnbench.export.formats import FORMATS, check_packages, export_net, preprocessing_file
from cnnbench.models.embedding import EMBEDDING
from cnnbench.models.layers import BOXES, CLASS
from cnnbench.tasks.classification import temperature
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.named_files import check_output, typed_path
from cnnbench.weights import sources
from cnnbench.weights.load import ready


def run(cfg: ExportConfig) -> int:
    if cfg.format not in FORMATS:
        raise unknown("format", cfg.format, FORMATS)
    check_packages(cfg.format)
    loaded = sources.load(cfg.weights, cfg.model, cfg.weights_key)
    model, spec, notes = ready(loaded, cfg.model, cfg.prepare, cfg.weights_rename, cfg.weights_skip)
    out = destination(cfg, loaded.source)
    difference, size = export_net(model, spec, cfg.format, out)
    beside = preprocessing_file(out)
    for note in [*notes, *temperature.note(spec, loaded.source)]:
        print(note)
    on = {
        CLASS: "on 20 crops of photographs its logits",
        EMBEDDING: "on 20 crops of photographs its embeddings",
        BOXES: "on 20 crops of photographs its scores",
    }.get(model.answers, "on photographs of three sizes its answers")
    alike = f"{on} differ by {difference:.1g} at most"
    if difference != difference:
        alike = "on 20 crops of photographs it finds nothing, as the net itself"
    print(
        f"{spec.model['name']} as {cfg.format}, {size / 1e6:,.1f} MB: read back, {alike}\n"
        f"images are prepared as {beside} says\n-> {out}"
    )
    return 0


def destination(cfg: ExportConfig, source: str) -> Path:
    """The file to write. UserError where it or the one beside it cannot be written, or is read here."""
    suffix = FORMATS[cfg.format].suffix
    if cfg.out is None:
        out = typed_path(cfg.run.root) / "export" / f"{sources.short_name(source)}{suffix}"
        out.parent.mkdir(parents=True, exist_ok=True)
    elif typed_path(cfg.out).suffix != suffix:
        raise UserError(f"out={cfg.out}: a file of format={cfg.format} is named *{suffix}")
    else:
        out = typed_path(cfg.out)
    used = [source, *([cfg.prepare.classes] if isinstance(cfg.prepare.classes, str) else [])]
    path = check_output("out", out if cfg.out is None else cfg.out, used)
    check_output("out", preprocessing_file(out), used)
    return path
