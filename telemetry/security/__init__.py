"""What makes a broker safe beyond loopback: certificates, accounts, bundles, and the broker that is told of them."""
