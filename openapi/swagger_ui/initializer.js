window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: true, // the token survives a reload
  tryItOutEnabled: true,
  validatorUrl: null, // else a public host name would have the page ask another host
});
