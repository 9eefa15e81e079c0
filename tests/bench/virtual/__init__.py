"""The whole router in virtual time, before simulated replicas that give recorded answers."""
