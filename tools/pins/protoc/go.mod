module palisade.example/tools/protoc

go 1.26

tool (
	connectrpc.com/connect/cmd/protoc-gen-connect-go
	google.golang.org/protobuf/cmd/protoc-gen-go
)

require (
	connectrpc.com/connect v1.19.1 // indirect
	google.golang.org/protobuf v1.36.10 // indirect
)
