"""The report of a study: its questions, answered on one page."""

from studies.report.write import WrittenReport, report_study, write_report

__all__ = ["WrittenReport", "report_study", "write_report"]
