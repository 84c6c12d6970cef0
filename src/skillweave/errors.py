"""What can go wrong, and what the person at the keyboard can do about it.

    SkillweaveError          exit 1: the user can fix it
    ├── NotFound             no such skill, task, base, method, paper: says the nearest name
    ├── BadName              a name that cannot be a folder
    ├── BadData              a data file: missing, empty, a bad line, a missing column, an example that is too long
    ├── BadSkill             a skill folder that cannot be trusted: corrupt, a pickle, broken frontmatter
    ├── BadBase              a base model that cannot be read
    ├── BadOption            an option whose value cannot work
    ├── BaseMismatch         the skill was learned on another base
    ├── LibraryError         not a library, locked, no space, no permission, a name that is taken
    ├── TooMuchForgotten     a new skill costs more elsewhere than was allowed
    ├── MissingExtra         an optional package: says what to install
    ├── Refused              exit 3: a guard said no
    └── BelowThreshold       exit 4: measured, and below what was asked

Every message is one sentence that holds the value; `hint` is the command or change that helps. `assert` is for our mistakes.
"""

import difflib
from collections.abc import Iterable


class SkillweaveError(Exception):
    """A fault the user can fix; the command line prints `message` and `hint`, and exits with `exit_code`."""

    exit_code = 1

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self):  # several take other arguments than (message, hint): keep them whole across processes
        return _restore, (type(self), self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}   hint: {self.hint}" if self.hint else self.message


def _restore(kind: type[SkillweaveError], message: str, hint: str) -> SkillweaveError:
    error = kind.__new__(kind)
    SkillweaveError.__init__(error, message, hint)
    return error


class NotFound(SkillweaveError):
    """No `kind` is called `name`; `known` are the names there are."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "", hint: str = ""):
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        guess = f" Did you mean `{near[0]}`?" if near else ""
        super().__init__(f"no {kind} `{name}`{f' in {where}' if where else ''}.{guess}", hint)


class BadName(SkillweaveError):
    """A name that cannot be the name of a skill."""


class BadData(SkillweaveError):
    """A data file or example that cannot be used."""


class BadSkill(SkillweaveError):
    """A skill folder that cannot be trusted."""


class BadBase(SkillweaveError):
    """A base model that cannot be read."""


class BadOption(SkillweaveError):
    """An option whose value cannot work."""


class BaseMismatch(SkillweaveError):
    """A skill and a base model, or two skills, that do not belong together."""


class LibraryError(SkillweaveError):
    """The library folder cannot do what was asked."""


class TooMuchForgotten(SkillweaveError):
    """A new skill costs more elsewhere than was allowed."""


class MissingExtra(SkillweaveError):
    """An optional package is not installed."""

    def __init__(self, what: str, package: str):
        super().__init__(f"{what} needs a package that is not installed.", f"pip install '{package}'")


class Refused(SkillweaveError):
    """A guard said no."""

    exit_code = 3


class BelowThreshold(SkillweaveError):
    """Measured, and below the threshold that was asked for."""

    exit_code = 4
