"""The commit that is checked out where a source file lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from furu.provenance.repository import commit_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHOWN = COMMIT[:12]


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": f"{COMMIT}\n"}, SHOWN),
        (
            {
                ".git/HEAD": "ref: refs/heads/a/b\n",
                ".git/packed-refs": f"# pack-refs\n{'f' * 40} refs/heads/a\n{COMMIT} refs/heads/a/b\n",
            },
            SHOWN,
        ),
        ({".git/HEAD": f"{COMMIT}\n"}, SHOWN),
        (
            {
                ".git": "gitdir: ../main/.git/worktrees/other\n",
                "../main/.git/worktrees/other/HEAD": "ref: refs/heads/other\n",
                "../main/.git/worktrees/other/commondir": "../..\n",
                "../main/.git/refs/heads/other": f"{COMMIT}\n",
            },
            SHOWN,
        ),
        ({".git/HEAD": "ref: refs/heads/unborn\n"}, ""),
        ({".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": "not a commit\n"}, ""),
        ({".git": "nonsense\n"}, ""),
    ],
    ids=["branch", "packed", "detached", "worktree", "no commit", "damaged", "no repository"],
)
def test_commit_is_read_from_the_repository(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    project = tmp_path / "project"
    for name, text in files.items():
        put(project / name, text)
    put(project / "package" / "module.py", "")
    assert expected == commit_of(str(project / "package" / "module.py"))
