"""The gossip on real sockets: packets by UDP and streams by TCP, on one port of its own."""
