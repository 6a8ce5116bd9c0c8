"""From challenger to champion: gate, evidence, ledger."""
