"""One self-contained page for a run: study (of a study), folder (of any other run); answer, command, tables and page are their parts."""

from .folder import render_folder, write_folder_report
from .study import render, write_report

__all__ = ["render", "render_folder", "write_folder_report", "write_report"]
