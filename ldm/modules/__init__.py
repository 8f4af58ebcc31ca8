"""Networks: layers, attention, SPADE, UNet, style encoder, first stage."""
