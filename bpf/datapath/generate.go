package datapath

// Objects are checked in, so that nobody needs clang to build or test; make check compares them with the sources.
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package datapath -cc clang-19 -strip llvm-strip-19 -target bpfel -type event -type reason -type hook -type interface -type endpoint -type device -type published_key -type published -type rule_key -type rule -type port_key -type prefix_key -type flow -type alias -type tuple -type address -type count -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" datapath ../src/datapath.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package datapath -cc clang-19 -strip llvm-strip-19 -target bpfel -output-suffix _test -type question -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" judge ../src/judge.c
