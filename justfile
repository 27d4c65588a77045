# Shortcuts. Each recipe is one line that works without just.

# List the recipes
default:
    @just --list

# Build everything as it is shipped
build:
    cargo build --release --workspace

# Run a simulated upstream and a broker, and get a token
demo:
    cargo build --release --workspace && target/release/arcbroker demo --once

# Run all tests
test:
    cargo test --workspace

# Run the chaos matrix: what a client sees, fault by fault
chaos:
    cargo test -p arcbroker-chaos

# Check format, lints, documents, dependencies and scripts
lint:
    .ci/lint

# Simulate so many machine-years, each from a seed of its own
simulate YEARS="20":
    cargo run --release -p arcbroker-simulation --example simulate -- --years {{YEARS}}

# Plant defects, one after another, and demand that the simulation finds each
mutants:
    tests/simulation/check-mutants

# Boot the package under Debian's kernel 6.1 or 5.10, with AppArmor; needs root
qemu DEB KERNEL="6.1":
    tests/qemu/run --deb {{DEB}} --kernel {{KERNEL}}

# Compile the SELinux policy and ask what it allows; needs root once, for its tools
selinux:
    packaging/selinux/check

# Compare the cost of a cached token with nginx; needs nginx and h2load
bench: build
    tests/bench/compare-nginx

# Print what one decision costs, with 10 and with 10,000 rules, and all that decides about a request
decisions:
    cargo bench -p arcbroker-policy -p arcbroker-broker --bench decide --bench callers

# Measure how much a caller that floods delays another one; needs root
fairness: build
    tests/bench/fairness

# Measure what `arcbroker exec` adds to the start of a program
bench-exec: build
    tests/bench/exec

# Measure size, start, memory and wake-ups
footprint: build
    tests/bench/footprint

# Run the commands of docs/recipes and docs/examples; installs az and Azurite once
recipes: build
    tests/recipes/run

# Have unmodified SDKs get tokens through exec; installs them once
sdk: build
    tests/sdk/run

# Build a deb and an rpm that run on glibc 2.28, and check them; installs zig once
packages:
    packaging/all

# Boot real systems and try the package in them; needs root and the release build
boot: build
    tests/boot/run

# Do what is done before a change lands
ci:
    .ci/run
