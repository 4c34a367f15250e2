"""PEFT methods, grouped by the survey's taxonomy; one file and one recipe each."""
