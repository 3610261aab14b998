;; The smallest whole HTTP function, written by hand: it answers every request with 200 and one line of text.
;; It exports wasi:http/incoming-handler in the oldest version of WASI 0.2 that there is, and imports only what it calls.
(component
  ;; --- What it imports: the parts of three interfaces of WASI, with their types as WASI defines them. ------------------

  (import "wasi:io/error@0.2.0" (instance $io (export "error" (type (sub resource)))))
  (alias export $io "error" (type $io-error))

  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $output-stream (sub resource)))
    (alias outer 1 $io-error (type $error))
    (type $failure (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $failure)))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $output-stream)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))

  (import "wasi:http/types@0.2.0" (instance $http
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type $response-outparam (sub resource)))
    (export "fields" (type $fields (sub resource)))
    (export "outgoing-response" (type $outgoing-response (sub resource)))
    (export "outgoing-body" (type $outgoing-body (sub resource)))
    (alias outer 1 $output-stream (type $stream))

    ;; Why an answer failed. This function never says so, but the type is part of the functions' types below.
    (type $dns (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns-error (eq $dns)))
    (type $tls (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls-alert (eq $tls)))
    (type $size (record (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $field-size (eq $size)))
    (type $code (variant
      (case "DNS-timeout") (case "DNS-error" $dns-error) (case "destination-not-found")
      (case "destination-unavailable") (case "destination-IP-prohibited") (case "destination-IP-unroutable")
      (case "connection-refused") (case "connection-terminated") (case "connection-timeout")
      (case "connection-read-timeout") (case "connection-write-timeout") (case "connection-limit-reached")
      (case "TLS-protocol-error") (case "TLS-certificate-error") (case "TLS-alert-received" $tls-alert)
      (case "HTTP-request-denied") (case "HTTP-request-length-required") (case "HTTP-request-body-size" (option u64))
      (case "HTTP-request-method-invalid") (case "HTTP-request-URI-invalid") (case "HTTP-request-URI-too-long")
      (case "HTTP-request-header-section-size" (option u32)) (case "HTTP-request-header-size" (option $field-size))
      (case "HTTP-request-trailer-section-size" (option u32)) (case "HTTP-request-trailer-size" $field-size)
      (case "HTTP-response-incomplete") (case "HTTP-response-header-section-size" (option u32))
      (case "HTTP-response-header-size" $field-size) (case "HTTP-response-body-size" (option u64))
      (case "HTTP-response-trailer-section-size" (option u32)) (case "HTTP-response-trailer-size" $field-size)
      (case "HTTP-response-transfer-coding" (option string)) (case "HTTP-response-content-coding" (option string))
      (case "HTTP-response-timeout") (case "HTTP-upgrade-failed") (case "HTTP-protocol-error") (case "loop-detected")
      (case "configuration-error") (case "internal-error" (option string))))
    (export "error-code" (type $error-code (eq $code)))

    (export "[constructor]fields" (func (result (own $fields))))
    (export "[constructor]outgoing-response" (func (param "headers" (own $fields)) (result (own $outgoing-response))))
    (export "[method]outgoing-response.body" (func
      (param "self" (borrow $outgoing-response)) (result (result (own $outgoing-body)))))
    (export "[static]response-outparam.set" (func (param "param" (own $response-outparam))
      (param "response" (result (own $outgoing-response) (error $error-code)))))
    (export "[method]outgoing-body.write" (func
      (param "self" (borrow $outgoing-body)) (result (result (own $stream)))))
    (export "[static]outgoing-body.finish" (func (param "this" (own $outgoing-body))
      (param "trailers" (option (own $fields))) (result (result (error $error-code)))))))
  (alias export $http "incoming-request" (type $incoming-request))
  (alias export $http "response-outparam" (type $response-outparam))

  ;; --- The imports as core functions. Results that do not fit into one number are written to memory, and so is text. ---

  (core module $space
    (memory (export "memory") 1)
    ;; Asked for room for the words of an error, which nobody reads here: the same place always.
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 128)))
  (core instance $space (instantiate $space))
  (alias core export $space "memory" (core memory $memory))
  (alias core export $space "realloc" (core func $realloc))

  (core func $new-fields (canon lower (func $http "[constructor]fields")))
  (core func $new-response (canon lower (func $http "[constructor]outgoing-response")))
  (core func $body (canon lower (func $http "[method]outgoing-response.body") (memory $memory)))
  (core func $set (canon lower (func $http "[static]response-outparam.set") (memory $memory)))
  (core func $open (canon lower (func $http "[method]outgoing-body.write") (memory $memory)))
  (core func $write (canon lower
    (func $streams "[method]output-stream.blocking-write-and-flush") (memory $memory)))
  (core func $close (canon resource.drop $output-stream))
  (core func $finish (canon lower (func $http "[static]outgoing-body.finish") (memory $memory) (realloc $realloc)))

  ;; --- The program. -----------------------------------------------------------------------------------------------------

  (core module $program
    (import "space" "memory" (memory 1))
    (import "http" "new-fields" (func $new-fields (result i32)))
    (import "http" "new-response" (func $new-response (param i32) (result i32)))
    (import "http" "body" (func $body (param i32 i32)))
    (import "http" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
    (import "http" "open" (func $open (param i32 i32)))
    (import "http" "write" (func $write (param i32 i32 i32 i32)))
    (import "http" "close" (func $close (param i32)))
    (import "http" "finish" (func $finish (param i32 i32 i32 i32)))

    (data (i32.const 0) "Hello from WebAssembly text\n")

    ;; Results go to address 64: first whether it failed, which it does not here, then at 68 the handle.
    (func (export "handle") (param $request i32) (param $out i32)
      (local $response i32) (local $body i32) (local $stream i32)
      (local.set $response (call $new-response (call $new-fields)))
      (call $body (local.get $response) (i32.const 64))
      (local.set $body (i32.load (i32.const 68)))
      ;; ok(response), and nothing in the places of an error. The head can leave now.
      (call $set (local.get $out) (i32.const 0) (local.get $response)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
      (call $open (local.get $body) (i32.const 64))
      (local.set $stream (i32.load (i32.const 68)))
      (call $write (local.get $stream) (i32.const 0) (i32.const 28) (i32.const 64))
      ;; The stream is the body's child, and has to go first. A body that is not finished is broken off.
      (call $close (local.get $stream))
      (call $finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 64))))

  (core instance $program (instantiate $program
    (with "space" (instance $space))
    (with "http" (instance
      (export "new-fields" (func $new-fields)) (export "new-response" (func $new-response))
      (export "body" (func $body)) (export "set" (func $set)) (export "open" (func $open))
      (export "write" (func $write)) (export "close" (func $close)) (export "finish" (func $finish))))))

  ;; --- What it exports. -------------------------------------------------------------------------------------------------

  (func $handle (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))
    (canon lift (core func $program "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
