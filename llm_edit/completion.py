"""`llm-edit completion`: the script that teaches a shell to complete the command."""

from __future__ import annotations

import click

VARIABLE = "_LLM_EDIT_COMPLETE"  # the script asks the command itself, through this variable


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash  echo 'eval "$(llm-edit completion bash)"' >> ~/.bashrc
    zsh   echo 'eval "$(llm-edit completion zsh)"' >> ~/.zshrc    (after compinit)
    fish  llm-edit completion fish > ~/.config/fish/completions/llm-edit.fish

    Commands, options, models, methods and sessions are completed.
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    found = get_completion_class(shell)
    assert found is not None, "click knows these shells"
    click.echo(found(root, {}, "llm-edit", VARIABLE).source())
