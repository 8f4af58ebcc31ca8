"""SCA-DM: controllable face synthesis from semantic masks."""
