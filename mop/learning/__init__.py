"""Training: the student acts, is corrected by the bot, and is saved; imports all but jobs and pages."""
