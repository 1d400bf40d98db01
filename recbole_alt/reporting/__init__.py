"""What runs and studies leave to be read: tables, plots and pages, all made from their records."""
