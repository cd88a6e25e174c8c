"""Colours. Every distinction they make is also made by a mark or a word."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="llm-edit-dark",
    primary="#7cacf8",
    secondary="#9aa7b8",
    accent="#56d4b1",
    success="#6fcf7f",
    warning="#e8b65a",
    error="#f47d76",
    foreground="#dfe5ee",
    background="#0e1116",
    surface="#141920",
    panel="#1d2430",
    dark=True,
    variables={
        "border": "#35404f",
        "border-blurred": "#2a3340",
        "footer-background": "#0e1116",
        "footer-key-foreground": "#7cacf8",
        "footer-description-foreground": "#9aa7b8",
        "input-selection-background": "#7cacf8 35%",
        "scrollbar": "#2a3340",
        "scrollbar-background": "#0e1116",
        "scrollbar-corner-color": "#0e1116",
    },
)

LIGHT = Theme(
    name="llm-edit-light",
    primary="#1c5cb8",
    secondary="#586577",
    accent="#046c58",
    success="#1c7434",
    warning="#8a5300",
    error="#b3261e",
    foreground="#1d232b",
    background="#fbfaf7",
    surface="#f4f2ec",
    panel="#e7e4da",
    dark=False,
    variables={
        "border": "#b9b4a6",
        "border-blurred": "#d3cec1",
        "footer-background": "#fbfaf7",
        "footer-key-foreground": "#1c5cb8",
        "footer-description-foreground": "#586577",
        "input-selection-background": "#1c5cb8 25%",
        "scrollbar": "#d3cec1",
        "scrollbar-background": "#fbfaf7",
        "scrollbar-corner-color": "#fbfaf7",
    },
)

CONTRAST = Theme(
    name="llm-edit-contrast",
    primary="#ffffff",
    secondary="#ffffff",
    accent="#00ffff",
    success="#00ff00",
    warning="#ffff00",
    error="#ff8080",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#202020",
    dark=True,
    text_alpha=1.0,
    variables={
        "border": "#ffffff",
        "border-blurred": "#c0c0c0",
        "footer-background": "#000000",
        "footer-key-foreground": "#ffff00",
        "footer-description-foreground": "#ffffff",
        "scrollbar": "#ffffff",
        "scrollbar-background": "#000000",
    },
)

# The sixteen colours of the terminal itself, whatever they are there.
ANSI = Theme(
    name="llm-edit-ansi",
    ansi=True,
    primary="ansi_blue",
    secondary="ansi_default",
    accent="ansi_cyan",
    success="ansi_green",
    warning="ansi_yellow",
    error="ansi_red",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    dark=True,
    variables={
        "border": "ansi_default",
        "border-blurred": "ansi_default",
        "ansi-background": "ansi_black",
        "ansi-foreground": "ansi_white",
        "block-cursor-foreground": "ansi_black",
        "block-cursor-background": "ansi_white",
        "input-cursor-background": "ansi_white",
        "input-cursor-foreground": "ansi_black",
        "input-cursor-text-style": "reverse",
        "input-selection-background": "ansi_blue",
        "input-selection-foreground": "ansi_white",
        "screen-selection-background": "ansi_blue",
        "screen-selection-foreground": "ansi_white",
        "scrollbar": "ansi_default",
        "scrollbar-background": "ansi_default",
        "scrollbar-corner-color": "ansi_default",
    },
)

THEMES = (DARK, LIGHT, CONTRAST, ANSI)
