package cri

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// rule says what happens to one field of a message.
type rule struct {
	// refused is why the field must not be given; empty when it may be.
	refused string
	// required fields have to be given.
	required bool
	// check looks at the value of a permitted field. It also runs when the field is not given, on the value that stands
	// for that, unless the field is a message.
	check func(*Policy, protoreflect.Value) error
}

// permitted fields are taken over as they are; messages are rebuilt by their own rules.
var permitted = rule{}

func refused(reason string) rule {
	return rule{refused: reason}
}

// required is a message without which containerd would choose something by itself.
var required = rule{required: true}

func checked(check func(*Policy, protoreflect.Value) error) rule {
	return rule{check: check}
}

// Rebuild returns a new message with the permitted fields of the request and nothing else. The error is a gRPC status
// that names the path of the first field that is not permitted, and the reason: PermissionDenied for what this host
// allows nobody, InvalidArgument for what no client of this host should send.
func (p *Policy) Rebuild(request proto.Message) (proto.Message, error) {
	rebuilt, err := p.rebuild("", request.ProtoReflect())
	if err != nil {
		return nil, err
	}
	return rebuilt.Interface(), nil
}

func (p *Policy) rebuild(path string, given protoreflect.Message) (protoreflect.Message, error) {
	name := given.Descriptor().Name()
	rules, known := messages[name]
	if !known {
		return nil, deny(path, fmt.Sprintf("there are no rules for the message %s", name))
	}
	if unknown := given.GetUnknown(); len(unknown) > 0 {
		return nil, invalid(path, fmt.Sprintf("%s has a field that this version of CRI does not know", name))
	}
	rebuilt := given.Type().New()
	fields := given.Descriptor().Fields()
	for index := range fields.Len() {
		field := fields.Get(index)
		at := join(path, string(field.Name()))
		rule, known := rules[field.Name()]
		switch {
		case !known:
			rule = refused("there is no rule for this field")
			fallthrough
		case rule.refused != "":
			if given.Has(field) {
				return nil, deny(at, rule.refused)
			}
		case rule.required && !given.Has(field):
			return nil, invalid(at, "it has to be given")
		default:
			if err := p.take(at, rule, field, given, rebuilt); err != nil {
				return nil, err
			}
		}
	}
	return rebuilt, nil
}

// take brings a permitted field into the new message.
func (p *Policy) take(path string, rule rule, field protoreflect.FieldDescriptor, given, rebuilt protoreflect.Message) error {
	value := given.Get(field)
	isMessage := field.Message() != nil && !field.IsMap()
	if rule.check != nil && (!isMessage || field.IsList()) {
		if err := rule.check(p, value); err != nil {
			return deny(path, err.Error())
		}
	}
	if !given.Has(field) {
		return nil
	}
	switch {
	case field.IsMap():
		// All maps of permitted fields are from text to text.
		target := rebuilt.Mutable(field).Map()
		for key, entry := range value.Map().Range {
			target.Set(key, entry)
		}
	case field.IsList():
		target := rebuilt.Mutable(field).List()
		for index := range value.List().Len() {
			element := value.List().Get(index)
			if isMessage {
				part, err := p.rebuild(fmt.Sprintf("%s[%d]", path, index), element.Message())
				if err != nil {
					return err
				}
				element = protoreflect.ValueOfMessage(part)
			}
			target.Append(element)
		}
	case isMessage:
		part, err := p.rebuild(path, value.Message())
		if err != nil {
			return err
		}
		rebuilt.Set(field, protoreflect.ValueOfMessage(part))
	default:
		rebuilt.Set(field, value)
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func deny(path, reason string) error {
	return refusal(codes.PermissionDenied, path, reason)
}

func invalid(path, reason string) error {
	return refusal(codes.InvalidArgument, path, reason)
}

func refusal(code codes.Code, path, reason string) error {
	if path == "" {
		return status.Error(code, reason)
	}
	return status.Error(code, path+": "+reason)
}
