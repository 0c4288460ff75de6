"""Commands and their errors."""

from types import SimpleNamespace

import pytest

from cnnbench.config import effects
from cnnbench.runtime import execute
from cnnbench.utils.errors import UserError

UNREADABLE = "cannot read the image 'bees/1.jpg': not an image that Pillow can read"


@pytest.mark.parametrize(
    ("command", "said", "remedy"),
    [("finetune", UNREADABLE, True), ("predict", UNREADABLE, False), ("train", "there is no file x", False)],
)
def test_an_image_that_cannot_be_read_is_named_with_what_leaves_it_out(
    monkeypatch: pytest.MonkeyPatch, command: str, said: str, remedy: bool
) -> None:
    def run(config: object) -> int:
        raise UserError(said)

    monkeypatch.setattr(execute, "load_command", lambda command: run)
    monkeypatch.setattr(effects, "refuse", lambda command, config: None)
    monkeypatch.setattr(effects, "idle", lambda config: [])
    with pytest.raises(UserError) as found:
        execute.run_command(command, SimpleNamespace(devices=1))
    assert str(found.value) == said + ("\ndata.on_error=skip leaves out such images and counts them" if remedy else "")
