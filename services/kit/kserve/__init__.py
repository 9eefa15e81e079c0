"""KServe's open inference protocol v2 beside `Generate`, for clients that speak Triton's gRPC.

`tensors` reads and writes tensors, `settings` knows what they may be called and mean, `requests`
turns a request into `GenerateRequest`s, `pieces` and `responses` turn answers into responses,
`servicer` has the `Generate` of the server beside it answer, and `part` is one request's context.
"""
