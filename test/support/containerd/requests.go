package containerd

import (
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	// The messages of the requests are found by their names.
	_ "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// record is a request with the name of its message.
type record struct {
	Message protoreflect.FullName `json:"message"`
	Request json.RawMessage       `json:"request"`
}

// EncodeRequests returns requests of CRI as DecodeRequests reads them.
func EncodeRequests(t *testing.T, requests []proto.Message) []byte {
	t.Helper()
	var records []record
	for _, request := range requests {
		content, err := protojson.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, record{request.ProtoReflect().Descriptor().FullName(), content})
	}
	content, err := json.MarshalIndent(records, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(content, '\n')
}

// DecodeRequests returns the recorded requests of CRI.
func DecodeRequests(t *testing.T, content []byte) []proto.Message {
	t.Helper()
	var records []record
	if err := json.Unmarshal(content, &records); err != nil {
		t.Fatal(err)
	}
	var requests []proto.Message
	for _, one := range records {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(one.Message)
		if err != nil {
			t.Fatal(err)
		}
		request := kind.New().Interface()
		if err := protojson.Unmarshal(one.Request, request); err != nil {
			t.Fatal(err)
		}
		requests = append(requests, request)
	}
	return requests
}
