"""The paper's study: every config trained and evaluated, in one table, and what each change of a config is worth."""
