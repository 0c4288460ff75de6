"""`cnnbench export`: a trained net for other programs, with its preprocessing beside it, checked after writing."""

from pathlib import Path

from cnnbench.config.commands import ExportConfig
from cnnbench.export.formats import FORMATS, check_packages, export_net, preprocessing_file
from cnnbench.utils.errors import UserError, unknown
from cnnbench.weights import sources
from cnnbench.weights.load import ready


def run(cfg: ExportConfig) -> int:
    if cfg.format not in FORMATS:
        raise unknown("format", cfg.format, FORMATS)
    check_packages(cfg.format)
    loaded = sources.load(cfg.weights, cfg.model, cfg.weights_key)
    model, spec, notes = ready(loaded, cfg.model, cfg.prepare, cfg.weights_rename, cfg.weights_skip)
    out = destination(cfg, loaded.source)
    difference = export_net(model, spec, cfg.format, out)
    size, beside = out.stat().st_size / 1e6, preprocessing_file(out)
    for note in notes:
        print(note)
    print(
        f"{spec.model['name']} as {cfg.format}, {size:,.1f} MB: read back, on 20 crops of photographs its logits "
        f"differ by {difference:.1g} at most\nimages are prepared as {beside} says\n-> {out}"
    )
    return 0


def destination(cfg: ExportConfig, source: str) -> Path:
    suffix = FORMATS[cfg.format].suffix
    if cfg.out is None:
        out = Path(cfg.run.root).expanduser() / "export" / f"{sources.short_name(source)}{suffix}"
    else:
        out = Path(cfg.out).expanduser()
    try:
        if cfg.out is None:
            out.parent.mkdir(parents=True, exist_ok=True)
        elif not out.parent.is_dir():
            raise UserError(f"out={cfg.out}: there is no folder {out.parent}")
        elif out.suffix != suffix:
            raise UserError(f"out={cfg.out}: a file of format={cfg.format} is named *{suffix}")
    except OSError as error:
        raise UserError(f"cannot write to {out.parent}: {error.strerror}") from None
    return out
