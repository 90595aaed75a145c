"""The report of a study: its questions, answered on one page."""

from studies.report.write import WrittenReport, write_report

__all__ = ["WrittenReport", "write_report"]
